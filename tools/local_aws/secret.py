"""The deployed signing secret."""

import boto3


class Secret:
    """One secret in Secrets Manager, whose current and previous versions count."""

    def __init__(self, arn):
        self._client = boto3.client("secretsmanager")
        self._arn = arn

    def put(self, value):
        """Sets it, or rotates it: it is one and the same."""
        self._client.put_secret_value(SecretId=self._arn, SecretString=value)
