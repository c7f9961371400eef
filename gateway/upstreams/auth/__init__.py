"""What publishers' servers ask of a caller beyond fixed fields: signed tokens, OAuth2 access tokens, traded tokens."""
