"""The checks of the AWS account and the region: credentials, bootstrap, quotas, and the stack as it is.

They only read.
"""
