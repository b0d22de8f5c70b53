"""Parts of `scripts/deploy` and `scripts/destroy`: the checks before a deployment, the CDK's command line, the images.

The stack itself is in `infrastructure/`, and prices are in `costing`.
"""
