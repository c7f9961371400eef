"""How an invoice looks to people: the page, and the process that draws the PDF."""
