"""How calls are paid: one protocol (purse.py), one file for each way, and which of them pays a call (choice.py)."""
