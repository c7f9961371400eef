"""Pure pricing: amounts, usage, quotes and tariffs. No I/O, no clock, no framework, and never a float."""
