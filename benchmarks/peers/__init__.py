"""Other people's servers, set up as their documentation says, to be measured beside ours. Not part of the gateway."""
