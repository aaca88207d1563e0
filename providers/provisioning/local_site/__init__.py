"""The program that the default recipe runs: sites that are really made of a folder and a PostgreSQL database.

Each command is one step of deploy/recipes/local.yml: `python -m providers.provisioning.local_site COMMAND
...`. Every command may be repeated, also after it was killed half-way. Exit codes: 0 done; 1 failed, another
attempt may help; 2 wrong usage and 65 refused, where no further attempt helps.
"""
