"""Termination protection of stacks, which moto keeps but neither changes nor heeds."""

from __future__ import annotations

from moto.cloudformation.exceptions import ValidationError
from moto.cloudformation.models import CloudFormationBackend
from moto.cloudformation.responses import CloudFormationResponse
from moto.core.responses import ActionResult

original_delete_stack = CloudFormationBackend.delete_stack


def update_termination_protection(response: CloudFormationResponse) -> ActionResult:
    """For moto's class, as a method."""
    stack = response.cloudformation_backend.get_stack(response._get_param("StackName"))
    stack.enable_termination_protection = response._get_bool_param("EnableTerminationProtection")
    return ActionResult({"StackId": stack.stack_id})


def delete_stack(backend: CloudFormationBackend, name_or_stack_id: str) -> None:
    """For moto's class, in the place of its own method."""
    for stack in list(backend.stacks.values()):
        if name_or_stack_id in (stack.name, stack.stack_id) and stack.enable_termination_protection:
            raise ValidationError(
                message=f"Stack [{stack.name}] cannot be deleted while TerminationProtection is enabled"
            )
    original_delete_stack(backend, name_or_stack_id)
