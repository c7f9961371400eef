"""Publishers' servers: one folder or file per foreign system, the egress guard and the credential box."""
