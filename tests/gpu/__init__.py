"""The appliance over a real CUDA engine, on a machine without a network: pack, unpack, run."""
