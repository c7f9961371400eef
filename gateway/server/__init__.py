"""The gateway's own HTTP/1.1 server: what stands between a socket and whoever answers a request."""
