"""What calls are: how each kind is read, priced, asked and delivered (kind.py), one file for each kind."""
