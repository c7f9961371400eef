"""Several gateways as one: poolers, clusters, hosts that share a database, and more calls than can be served."""
