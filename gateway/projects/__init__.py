"""Projects: what an organization keeps its branches, databases and computes in, and from which addresses it is reached.

There are no branches, databases and computes yet, so a project is its settings and its IP allow-list, and what
publishers and webhooks can be named to belong to. What does not live here: HTTP (admin_api/resources/projects.py).
"""
