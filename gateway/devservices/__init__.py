"""What `tollway dev` starts on this machine: PostgreSQL, Valkey and the demo publishers' upstream server.

Nothing here is imported by the gateway itself. Production brings its own servers and never runs this code.
"""
