"""Invoices of organizations, month by month (docs/invoices.md).

lines    what was bought, from sources that others add to        taxes    what is added, decided purely
records  the rows as they are read                               details  who the buyer is
drafts   making the invoices of a month                          issuing  a number, the booking, and void
paying   card payments of what is due                            document, page, pdf   how it looks
"""
