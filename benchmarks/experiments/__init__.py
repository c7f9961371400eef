"""What is measured beside rounds: what a call writes, overload, idle streams, the start, growth, profiles."""
