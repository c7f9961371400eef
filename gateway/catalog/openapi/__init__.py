"""OpenAPI documents of publishers: read from hostile text, turned into endpoint definitions, and made again for buyers.

text.py reads JSON and YAML; references.py follows $ref inside the document; schemas.py brings schemas into a plain
form; payment_info.py reads and writes x-payment-info; importing.py makes endpoints; merging.py puts them beside those
that are there; exporting.py makes the document of what is on sale. All of it pure: fetching is upstreams/documents.py.
"""
