"""Measuring ICL curves: questions x a language model -> a tidy table.

One long prompt of worked examples is one row for each number of shots that it holds. Parts:
`questions` reads them, `labels` says what the demonstrations answer, `prompts` writes the text,
`plan` says which orders there are, `backend` and the modules of that kind score text, `measure`
does what is not done yet, and `collection` keeps it and joins the table.
"""
