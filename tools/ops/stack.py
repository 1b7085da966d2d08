"""A deployed stack, as CloudFormation describes it."""

from typing import Optional

import boto3

NAME = "sendpilot-opportunity-alerts"  # of the stack, where nobody says otherwise


def outputs(stack_name: str) -> dict[str, str]:
    """Returns the outputs of a deployed stack, by name."""
    return outputs_of(described(stack_name))


def described(stack_name: str) -> dict:
    """Returns a deployed stack as CloudFormation describes it."""
    return boto3.client("cloudformation").describe_stacks(StackName=stack_name)["Stacks"][0]


def outputs_of(stack: dict) -> dict[str, str]:
    """Returns the outputs of a described stack, by name."""
    return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}


def parameters_of(stack: dict) -> dict[str, Optional[str]]:
    """Returns the parameters of a described stack, by name."""
    return {one["ParameterKey"]: one.get("ParameterValue") for one in stack.get("Parameters", [])}
