"""OpenAPI documents of publishers: read from hostile text, turned into endpoint definitions.

text.py reads JSON and YAML; references.py follows $ref inside the document; schemas.py brings schemas into a plain
form; payment_info.py reads and writes x-payment-info; importing.py makes endpoints; merging.py puts them beside those
that are there; desk.py stores them. Fetching is upstreams/documents.py, the document of what is on sale
admin_api/store/openapi.py.
"""
