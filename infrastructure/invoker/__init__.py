"""The code of the Lambda that invokes others for CloudFormation: `index.py`, which runs there by itself.

It imports nothing of the project.
"""
