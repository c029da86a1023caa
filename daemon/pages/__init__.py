"""The operator's console: pages for people in a browser, before the serve role's app at `/` and below `/pages/`.

A page is a module with a function of a `Request` and the `Parts`, a template, and a line in the table of `site.py`.
`sign_in.py` lets in who may read it. Pages show what the control API, the store's queries and the files of the home
tell, and change things through the control API alone, so that no check and no line of the audit log is missed.
"""
