"""What developers and tests start and break: services, faults, broken builds."""
