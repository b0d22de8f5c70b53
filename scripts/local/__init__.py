"""The stand-in for API Gateway and Lambda on a laptop, and the set-up of `.venv`.

`scripts/serve` starts it.
"""
