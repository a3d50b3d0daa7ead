"""Many twins at once: the stacked engine beside as many plain steps, one after the other.

python -m pytest benchmarks/bench_twins.py --benchmark-enable

The network is 64-64-10 on batches of 256 images of 8 x 8, SGD with momentum, two threads. 31 twins
and a control are 32 steps of the sequential engine, at the least; the stacked engine takes one step
of 33 members (the unperturbed one comes to them) and one of the plain run, compares the control,
and keeps the random streams.

Predicted. A member's step is 5.2 million multiply-adds' worth of flops in five products (11 with
the sums around them written out as two flops each: 2 x 256 x (64 x 64 x 2 + 64 x 10 x 3)), so 33 of
them 173 Mflop: 1.1 ms at the 160 Gflop/s that two cores give large products, some 2 ms for such
small ones. The log-softmax of 33 x 256 rows of 10 takes 1.3 ms of one core forwards and 0.65
backwards, whether at once or row by row, so 1.0 on two. Activations are 2.2 MB each, within the
L3, read and written some ten times: 0.5 ms. Python: 1 ms once. So 4 to 5 ms, where a plain step
takes 0.35, two thirds of it Python and small calls on one thread, and 32 of them 11 ms: 0.35 to 0.45
by these products. What the stacked form saves is what a step costs beside its arithmetic; batches of
256 have much arithmetic, and those of 32, where a step has an eighth of it, should come to 0.15.
"""
