"""The one door to PostgreSQL: pool, typed statements, migrations. Nothing outside this folder imports asyncpg.

What does not live here: the statements themselves, which stand next to the code that uses them.
"""
