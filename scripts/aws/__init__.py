"""AWS as several commands use it: settings and outputs of the stack, and what to do about errors.

Commands that needn't have the project's packages import this only where they need AWS.
"""
