"""The `tollway` command: one file per command or group, joined in main.py."""
