"""From runs to figures, tables, claims and a page that say how sure they are.

``analysis.report.write_report(source, name, out)`` reports on one sweep,
``analysis.paper.write_paper(feeds, target, out)`` draws the paper's figures and tables, and
``analysis.load`` gives the tidy frames. Imports no trainer and no sweep.
"""
