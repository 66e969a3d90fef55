"""What the appliance adds to vLLM from outside, as general plug-ins: one module each."""
