"""The operator's commands, for a deployed stack or for the local AWS of `make run`.

They need boto3 and the standard library. A release has them in one file, `ops.pyz`. AWS CloudShell
can run that file as it is. CloudShell has Python 3.9
(<https://docs.aws.amazon.com/linux/al2023/ug/python.html>), so this package keeps to Python 3.9.
"""
