"""The checks of this machine: settings, files, Docker, disk, and the CDK's command line.

They ask nothing of AWS.
"""
