"""Who may do what over HTTP: the tokens of a home, and the one check that every interface makes.

Imports `runtime`. `token_file` keeps the tokens, `access` decides on a request, `guard` puts that before an app.
"""
