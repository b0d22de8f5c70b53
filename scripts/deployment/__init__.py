"""Parts of `scripts/deploy` and `scripts/destroy`: what the checks find, the CDK's command line, the images.

The stack itself is in `infrastructure/`, and prices are in `costing`.
"""
