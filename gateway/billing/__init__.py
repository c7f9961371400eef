"""Billing models, one policy per file named by its wire id: from facts to a decision, without I/O."""
