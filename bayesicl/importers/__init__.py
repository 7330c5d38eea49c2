"""Importers: what other tools logged becomes the tidy table that `read_curves` reads.

One module a tool; each only finds its runs. Logs are found, and what is wrong with them is said, in
`logs`. What a table is made of, and which runs may stand in one curve, is decided once, in `runs`.
"""
