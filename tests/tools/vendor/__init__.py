"""The parts of tests/tools/vendor_repository: stand-ins for NVIDIA's and the distributions' repositories."""
