// Lanes that go separate ways: loops of different length, nested conditions, early return, break and continue.

extern "C" __global__ void collatz(int n, const unsigned int *start, unsigned int *steps, unsigned int *peak) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) {
        return;
    }
    unsigned int v = start[i], count = 0, largest = v;
    while (v != 1) {
        if (v % 2 == 0) {
            v /= 2;
        } else {
            v = 3 * v + 1;
            if (v > largest) {
                largest = v;
            }
        }
        count++;
    }
    steps[i] = count;
    peak[i] = largest;
}

extern "C" __global__ void nested(int n, const int *x, int *y) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) {
        return;
    }
    int v = x[i], sum = 0;
    for (int a = 0; a < 10; a++) {
        if ((v + a) % 7 == 3) {
            continue;
        }
        for (int b = 0; b < 10; b++) {
            if (a * b > (v & 31)) {
                break;
            }
            if ((v >> (b % 5)) & 1) {
                if (b % 2) {
                    sum += a * b;
                } else {
                    sum -= b;
                }
            } else if (a == b) {
                sum += 100;
                goto out;
            }
        }
        if (sum > 400) {
            y[i] = -sum;
            return;
        }
    }
out:
    y[i] = sum;
}

// Lanes of one warp that pass each other a token, in the order of their indices: needs independent progress.
extern "C" __global__ void take_turns(int *turn, int *order) {
    int lane = threadIdx.x;
    bool done = false;
    while (!done) {
        if (atomicAdd(turn, 0) == lane) {
            order[lane] = 10 * lane;
            __threadfence_block();
            atomicExch(turn, lane + 1);
            done = true;
        }
    }
}
