"""DVC's experiments at terminal width, and their entropy curves on one page that needs no network.

read.py      what `dvc exp show --json` says: what each experiment changed, and the headline numbers it led to
terminal.py  one table; what is as in the commit that an experiment started from is left out
page.py      the table and the curves as HTML: a colour per variant, dashes per revision, nothing loaded
"""
