from tests.services.conftest import tenancy

__all__ = ["tenancy"]
