"""The final evaluation: policies on benchmarks, k samples a problem, resumable, one row a response.

``plan`` resolves and checks what is asked, ``run`` draws and judges what is missing and tells the
trial, ``samples`` keeps it, ``reports`` names what a report shows.
"""
