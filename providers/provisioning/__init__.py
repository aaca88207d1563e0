"""Provisioning: turning a paid subscription into a running site, one resumable step at a time.

Where to find what (nothing is re-exported here, so that the small programs a recipe starts from this package
do not pay for importing all of it):

- `contract`: what the services floor sees: the target, the plan, the driver and its errors.
- `recipe`: the YAML recipe, validated while it is loaded.
- `driver`: the driver that runs a recipe.
- `commands`: one subprocess, its whole process group, and its bounded output.
- `site_state`: the lock, the claim and the generated secrets the driver keeps per site.
- `local_site`: the program that the default recipe runs (`python -m providers.provisioning.local_site`).
"""
