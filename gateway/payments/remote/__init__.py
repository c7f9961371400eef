"""Networks on which an external facilitator settles for us, because we have no node or no key there."""
