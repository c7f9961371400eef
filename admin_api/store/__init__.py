"""The store for people: plain HTML made on the server, without scripts and without a build step.

pages.py are the routes, facts.py what the pages say, clean.py makes strangers' text fit to be shown, templates/ how it
looks. What agents read instead (JSON, llms.txt) is in resources/.
"""
