// Selective scan and causal convolution on the CPU behind a plain C interface (no PyTorch headers, so that the
// first build takes seconds). Built and called by cpp.py, which gives contiguous buffers and checks the shapes.
//
// A few channels of one sequence are scanned at a time: their steps, decays and states stay in the cache. Backward
// computes the states again, so nothing but the inputs is kept between the two passes.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <system_error>
#include <thread>
#include <type_traits>
#include <vector>

namespace {

template <class T> struct Format;
template <> struct Format<float> {
    using Bits = uint32_t;
    static constexpr float round = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
    static constexpr int mantissa = 23, bias = 127, exp_terms = 7, log_terms = 8;
    static constexpr float lowest = -87.0f, highest = 88.7f;
};
template <> struct Format<double> {
    using Bits = uint64_t;
    static constexpr double round = 6755399441055744.0;  // 1.5 * 2^52
    static constexpr int mantissa = 52, bias = 1023, exp_terms = 13, log_terms = 17;
    static constexpr double lowest = -708.0, highest = 709.7;
};

// 1 + r/K (1 + r/(K+1) (...)): the Taylor series of exp, nested.
template <class T, int K, int Last> inline T exp_series(T r) {
    if constexpr (K > Last) return T(1);
    else return T(1) + r * T(1.0 / K) * exp_series<T, K + 1, Last>(r);
}

// 1 + s/3 + s^2/5 + ...: atanh(sqrt(s)) / sqrt(s).
template <class T, int K, int Last> inline T atanh_series(T s) {
    if constexpr (K > Last) return T(0);
    else return T(1.0 / (2 * K + 1)) + s * atanh_series<T, K + 1, Last>(s);
}

// Branch-free, so that loops over it become vector code; 2 units in the last place, NaN stays NaN.
template <class T> inline T fast_exp(T x) {
    using F = Format<T>;
    T clamped = x < F::lowest ? F::lowest : x;
    clamped = clamped > F::highest ? F::highest : clamped;
    T shifted = clamped * T(1.4426950408889634074) + F::round;
    typename F::Bits bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    T n = shifted - F::round;
    // ln 2 in two parts, the first with so few digits that its product with n is exact.
    T r = clamped - n * T(0.693145751953125);
    r = r - n * T(1.42860682030941723212e-6);
    // 2^(n-1), doubled afterwards: 2^n itself may lie above the largest number.
    bits = (bits + (F::bias - 1)) << F::mantissa;
    T scale;
    std::memcpy(&scale, &bits, sizeof scale);
    T result = exp_series<T, 1, F::exp_terms>(r) * scale * T(2);
    result = x < F::lowest ? T(0) : result;
    return x > F::highest ? std::numeric_limits<T>::infinity() : result;
}

template <class T> inline T sigmoid(T x) {
    T e = fast_exp(x < T(0) ? x : -x);
    return (x < T(0) ? e : T(1)) / (T(1) + e);
}

// As in PyTorch: the identity above 20.
template <class T> inline T softplus(T x) {
    T e = fast_exp(x < T(0) ? x : -x);
    T s = e / (T(2) + e);
    T result = (x < T(0) ? T(0) : x) + T(2) * s * atanh_series<T, 0, Format<T>::log_terms>(s * s);
    return x > T(20) ? x : result;
}

// Loops over whole rows. They are functions of their own, never inlined: inside a lambda g++ leaves them scalar.
#define KINEMA_LOOP template <class T> __attribute__((noinline)) void

KINEMA_LOOP exp_all(int64_t count, T* __restrict x) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) x[i] = fast_exp(x[i]);
}

KINEMA_LOOP softplus_all(int64_t count, T* __restrict x) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) x[i] = softplus(x[i]);
}

KINEMA_LOOP softplus_slope(int64_t count, const T* __restrict x, T* __restrict slope) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) slope[i] = x[i] > T(20) ? T(1) : sigmoid(x[i]);
}

KINEMA_LOOP sigmoid_all(int64_t count, const T* __restrict x, T* __restrict y) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) y[i] = sigmoid(x[i]);
}

KINEMA_LOOP multiply_by_silu(int64_t count, const T* __restrict x, T* __restrict y) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) y[i] *= x[i] * sigmoid(x[i]);
}

KINEMA_LOOP silu_all(int64_t count, T* __restrict x) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) x[i] *= sigmoid(x[i]);
}

// x becomes grad_y times the derivative of silu at x.
KINEMA_LOOP silu_gradient(int64_t count, const T* __restrict grad_y, T* __restrict x) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
        const T p = sigmoid(x[i]);
        x[i] = grad_y[i] * (p + x[i] * p * (T(1) - p));
    }
}

// Call job(item, thread) for every item; an item writes to memory of its own, so the threads need no order.
template <class Job> void parallel(int64_t items, int threads, const Job& job) {
    std::atomic<int64_t> next{0};
    auto work = [&](int thread) {
        for (int64_t item; (item = next.fetch_add(1, std::memory_order_relaxed)) < items;) job(item, thread);
    };
    std::vector<std::thread> others;
    try {
        for (int i = 1; i < threads; ++i) others.emplace_back(work, i);
    } catch (const std::system_error&) {
        // The system gives no more threads: those that started share the work.
    }
    work(0);
    for (auto& other : others) other.join();
}

// B and C are [batch, group, time, state] with steps in elements; a step is 0 along an axis on which they are constant.
struct ScanSizes {
    int64_t batch, channels, length, state;
    int64_t b_batch, b_group, b_time, b_groups;
    int64_t c_batch, c_group, c_time, c_groups;
    int64_t softplus, splits, threads;
};

template <class T> struct ScanInputs {
    const T *u, *delta, *A, *B, *C, *D, *z, *bias, *initial;
};

// Gradients of B and C: [split, batch, group, time, state]; of A, D and bias: one row per sequence.
template <class T> struct ScanGrads {
    const T* y;
    T *u, *delta, *A, *B, *C, *D, *z, *bias;
    int64_t b_split, b_batch, c_split, c_batch;
};

// Channels that are prepared together: rows of 17 joints are too short for vector code, several in a row are not.
inline int64_t tile_of(const ScanSizes& s) { return std::min(s.channels, std::max<int64_t>(1, 1024 / s.length)); }

// Steps after bias and softplus, and decays exp(step * A), of the channels from d on; slope, where given, becomes the
// derivative of the softplus.
template <class T, int N> void prepare(const ScanSizes& s, const ScanInputs<T>& in, int64_t b, int64_t d, int64_t count,
                                       T* __restrict step, T* __restrict decay, T* __restrict slope) {
    const int64_t n_state = N ? N : s.state, total = count * s.length;
    const T* __restrict delta = in.delta + (b * s.channels + d) * s.length;
    for (int64_t c = 0; c < count; ++c) {
        const T bias = in.bias ? in.bias[d + c] : T(0);
#pragma omp simd
        for (int64_t i = c * s.length; i < (c + 1) * s.length; ++i) step[i] = delta[i] + bias;
    }
    if (s.softplus) {
        if (slope) softplus_slope(total, step, slope);
        softplus_all(total, step);
    }
    for (int64_t c = 0; c < count; ++c) {
        const T* __restrict A = in.A + (d + c) * n_state;
        for (int64_t i = c * s.length; i < (c + 1) * s.length; ++i)
            for (int64_t n = 0; n < n_state; ++n) decay[i * n_state + n] = step[i] * A[n];
    }
    exp_all(total * n_state, decay);
}

template <class T, int N> void forward_channel(const ScanSizes& s, const ScanInputs<T>& in, int64_t b, int64_t d,
                                               const T* __restrict step, const T* __restrict decay, T* __restrict y,
                                               T* __restrict last) {
    const int64_t n_state = N ? N : s.state, channel = b * s.channels + d;
    const T* __restrict u = in.u + channel * s.length;
    const T* __restrict B = in.B + b * s.b_batch + d / (s.channels / s.b_groups) * s.b_group;
    const T* __restrict C = in.C + b * s.c_batch + d / (s.channels / s.c_groups) * s.c_group;
    const T skip = in.D ? in.D[d] : T(0);
    T fixed[N ? N : 1];
    T* h = N ? fixed : last;
    for (int64_t n = 0; n < n_state; ++n) h[n] = in.initial ? in.initial[channel * n_state + n] : T(0);
    for (int64_t t = 0; t < s.length; ++t) {
        const T x = step[t] * u[t];
        const T *Bt = B + t * s.b_time, *Ct = C + t * s.c_time, *at = decay + t * n_state;
        T sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t n = 0; n < n_state; ++n) {
            h[n] = at[n] * h[n] + x * Bt[n];
            sum += Ct[n] * h[n];
        }
        y[t] = sum + skip * u[t];
    }
    if (N)
        for (int64_t n = 0; n < n_state; ++n) last[n] = h[n];
}

template <class T, int N> void backward_channel(const ScanSizes& s, const ScanInputs<T>& in, const ScanGrads<T>& out,
                                                int64_t b, int64_t d, int64_t split, const T* __restrict step,
                                                const T* __restrict decay, const T* __restrict slope,
                                                const T* __restrict gate, T* __restrict scratch) {
    const int64_t n_state = N ? N : s.state, length = s.length, channel = b * s.channels + d, row = channel * length;
    const int64_t b_group = d / (s.channels / s.b_groups) * s.b_group;
    const int64_t c_group = d / (s.channels / s.c_groups) * s.c_group;
    const T *__restrict u = in.u + row, *__restrict A = in.A + d * n_state;
    const T *__restrict B = in.B + b * s.b_batch + b_group, *__restrict C = in.C + b * s.c_batch + c_group;
    T* __restrict grad_B = out.B + split * out.b_split + b * out.b_batch + b_group;
    T* __restrict grad_C = out.C + split * out.c_split + b * out.c_batch + c_group;
    T *__restrict grad_u = out.u + row, *__restrict grad_delta = out.delta + row;
    const T skip = in.D ? in.D[d] : T(0);

    T *__restrict grad_y = scratch, *__restrict grad_A = grad_y + length, *__restrict carry = grad_A + n_state;
    // The state before the first step stands in front of the others, so that every step finds its predecessor.
    T* __restrict states = carry + n_state;
    for (int64_t n = 0; n < n_state; ++n) {
        states[n] = in.initial ? in.initial[channel * n_state + n] : T(0);
        grad_A[n] = carry[n] = T(0);
    }
    for (int64_t t = 0; t < length; ++t) {
        const T x = step[t] * u[t];
        const T *Bt = B + t * s.b_time, *Ct = C + t * s.c_time, *at = decay + t * n_state;
        const T* before = states + t * n_state;
        T *after = states + (t + 1) * n_state, sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t n = 0; n < n_state; ++n) {
            after[n] = at[n] * before[n] + x * Bt[n];
            sum += Ct[n] * after[n];
        }
        grad_y[t] = sum + skip * u[t];  // the output before the gate, for the moment
    }
    if (in.z) {
        const T *__restrict z = in.z + row, *__restrict gy = out.y + row;
        T* __restrict grad_z = out.z + row;
#pragma omp simd
        for (int64_t t = 0; t < length; ++t) {
            const T silu = z[t] * gate[t];
            grad_z[t] = gy[t] * grad_y[t] * (gate[t] + silu * (T(1) - gate[t]));
            grad_y[t] = gy[t] * silu;
        }
    } else {
        std::memcpy(grad_y, out.y + row, length * sizeof(T));
    }
    T sum_D = 0, sum_bias = 0;
    for (int64_t t = length - 1; t >= 0; --t) {
        const T g = grad_y[t], dt = step[t], x = dt * u[t];
        const T *Bt = B + t * s.b_time, *Ct = C + t * s.c_time, *at = decay + t * n_state;
        const T *before = states + t * n_state, *h = before + n_state;
        T *gB = grad_B + t * s.b_time, *gC = grad_C + t * s.c_time;
        T grad_x = 0, grad_step = 0;
#pragma omp simd reduction(+ : grad_x, grad_step)
        for (int64_t n = 0; n < n_state; ++n) {
            const T grad_h = Ct[n] * g + carry[n];
            gC[n] += g * h[n];
            gB[n] += x * grad_h;
            grad_x += grad_h * Bt[n];
            carry[n] = grad_h * at[n];
            const T q = carry[n] * before[n];
            grad_step += q * A[n];
            grad_A[n] += q * dt;
        }
        grad_u[t] = grad_x * dt + skip * g;
        grad_delta[t] = (grad_step + grad_x * u[t]) * (s.softplus ? slope[t] : T(1));
        sum_D += g * u[t];
        sum_bias += grad_delta[t];
    }
    for (int64_t n = 0; n < n_state; ++n) out.A[channel * n_state + n] = grad_A[n];
    if (out.D) out.D[channel] = sum_D;
    if (out.bias) out.bias[channel] = sum_bias;
}

template <class T, int N> void forward_all(const ScanSizes& s, const ScanInputs<T>& in, T* y, T* last) {
    const int64_t tile = tile_of(s), tiles = (s.channels + tile - 1) / tile, room = tile * s.length * (1 + s.state);
    std::vector<T> scratch(room * s.threads);
    parallel(s.batch * tiles, int(s.threads), [&](int64_t item, int thread) {
        const int64_t b = item / tiles, d = item % tiles * tile, count = std::min(tile, s.channels - d);
        const int64_t channel = b * s.channels + d;
        T *step = scratch.data() + thread * room, *decay = step + tile * s.length, *out = y + channel * s.length;
        prepare<T, N>(s, in, b, d, count, step, decay, nullptr);
        for (int64_t c = 0; c < count; ++c)
            forward_channel<T, N>(s, in, b, d + c, step + c * s.length, decay + c * s.length * s.state,
                                  out + c * s.length, last + (channel + c) * s.state);
        if (in.z) multiply_by_silu(count * s.length, in.z + channel * s.length, out);
    });
}

template <class T, int N> void backward_all(const ScanSizes& s, const ScanInputs<T>& in, const ScanGrads<T>& out) {
    const int64_t tile = tile_of(s), steps = tile * s.length;
    const int64_t room = steps * (3 + s.state) + s.length + (s.length + 3) * s.state;
    std::vector<T> scratch(room * s.threads);
    // An item is a run of channels of one sequence: they share the gradients of B and C.
    parallel(s.batch * s.splits, int(s.threads), [&](int64_t item, int thread) {
        const int64_t b = item / s.splits, split = item % s.splits, end = (split + 1) * s.channels / s.splits;
        T *step = scratch.data() + thread * room, *slope = step + steps, *gate = slope + steps, *decay = gate + steps;
        for (int64_t d = split * s.channels / s.splits; d < end; d += tile) {
            const int64_t count = std::min(tile, end - d);
            prepare<T, N>(s, in, b, d, count, step, decay, slope);
            if (in.z) sigmoid_all(count * s.length, in.z + (b * s.channels + d) * s.length, gate);
            for (int64_t c = 0; c < count; ++c) {
                const int64_t at = c * s.length;
                backward_channel<T, N>(s, in, out, b, d + c, split, step + at, decay + at * s.state, slope + at,
                                       gate + at, decay + steps * s.state);
            }
        }
    });
}

// The state sizes in use get loops of fixed length.
template <class T, class Call> int by_state(int64_t state, const Call& call) {
    try {
        switch (state) {
            case 4: call(std::integral_constant<int, 4>()); break;
            case 8: call(std::integral_constant<int, 8>()); break;
            case 16: call(std::integral_constant<int, 16>()); break;
            default: call(std::integral_constant<int, 0>());
        }
    } catch (const std::bad_alloc&) {
        return 1;
    }
    return 0;
}

// Rows are padded by the K - 1 samples before them.
template <class T> void pad(const T* row, const T* initial, int64_t length, int64_t before, T* out) {
    for (int64_t i = 0; i < before; ++i) out[i] = initial ? initial[i] : T(0);
    std::memcpy(out + before, row, length * sizeof(T));
}

template <class T> void convolve(const T* __restrict padded, const T* __restrict weight, T bias, int64_t length,
                                 int64_t width, T* __restrict y) {
    for (int64_t t = 0; t < length; ++t) y[t] = bias;
    for (int64_t k = 0; k < width; ++k) {
        const T w = weight[k];
#pragma omp simd
        for (int64_t t = 0; t < length; ++t) y[t] += w * padded[t + k];
    }
}

struct ConvSizes {
    int64_t batch, channels, length, width, silu, threads;
};

template <class T> int conv_forward(const ConvSizes& s, const T* x, const T* weight, const T* bias, const T* initial,
                                    T* y) {
    try {
        const int64_t before = s.width - 1, room = s.length + before;
        std::vector<T> scratch(room * s.threads);
        parallel(s.batch * s.channels, int(s.threads), [&](int64_t item, int thread) {
            const int64_t d = item % s.channels;
            T *padded = scratch.data() + thread * room, *__restrict out = y + item * s.length;
            pad(x + item * s.length, initial ? initial + item * before : nullptr, s.length, before, padded);
            convolve(padded, weight + d * s.width, bias ? bias[d] : T(0), s.length, s.width, out);
            if (s.silu) silu_all(s.length, out);
        });
    } catch (const std::bad_alloc&) {
        return 1;
    }
    return 0;
}

// grad_weight and grad_bias: one row per sequence and channel.
template <class T> int conv_backward(const ConvSizes& s, const T* x, const T* weight, const T* bias, const T* initial,
                                     const T* grad_y, T* grad_x, T* grad_weight, T* grad_bias) {
    try {
        const int64_t before = s.width - 1, room = 2 * (s.length + before);
        std::vector<T> scratch(room * s.threads);
        parallel(s.batch * s.channels, int(s.threads), [&](int64_t item, int thread) {
            const int64_t d = item % s.channels;
            T *__restrict padded = scratch.data() + thread * room, *__restrict g = padded + s.length + before;
            const T *__restrict gy = grad_y + item * s.length, *__restrict w = weight + d * s.width;
            T* __restrict gx = grad_x + item * s.length;
            pad(x + item * s.length, initial ? initial + item * before : nullptr, s.length, before, padded);
            if (s.silu) {
                convolve(padded, w, bias ? bias[d] : T(0), s.length, s.width, g);
                silu_gradient(s.length, gy, g);
            } else {
                std::memcpy(g, gy, s.length * sizeof(T));
            }
            for (int64_t i = 0; i < before; ++i) g[s.length + i] = T(0);
            for (int64_t t = 0; t < s.length; ++t) gx[t] = T(0);
            T sum_bias = 0;
#pragma omp simd reduction(+ : sum_bias)
            for (int64_t t = 0; t < s.length; ++t) sum_bias += g[t];
            grad_bias[item] = sum_bias;
            for (int64_t k = 0; k < s.width; ++k) {
                T sum = 0;
                const T wk = w[k], *__restrict later = g + before - k;
#pragma omp simd reduction(+ : sum)
                for (int64_t t = 0; t < s.length; ++t) {
                    gx[t] += wk * later[t];
                    sum += g[t] * padded[t + k];
                }
                grad_weight[item * s.width + k] = sum;
            }
        });
    } catch (const std::bad_alloc&) {
        return 1;
    }
    return 0;
}

}  // namespace

// A function returns 0, or 1 where memory is short.
#define KINEMA_EXPORT(T, KIND)                                                                                       \
    extern "C" int kinema_scan_forward_##KIND(const ScanSizes* s, const ScanInputs<T>* in, T* y, T* last) {          \
        return by_state<T>(s->state, [&](auto n) { forward_all<T, decltype(n)::value>(*s, *in, y, last); });         \
    }                                                                                                                \
    extern "C" int kinema_scan_backward_##KIND(const ScanSizes* s, const ScanInputs<T>* in, const ScanGrads<T>* out) { \
        return by_state<T>(s->state, [&](auto n) { backward_all<T, decltype(n)::value>(*s, *in, *out); });           \
    }                                                                                                                \
    extern "C" int kinema_conv_forward_##KIND(const ConvSizes* s, const T* x, const T* weight, const T* bias,        \
                                              const T* initial, T* y) {                                              \
        return conv_forward<T>(*s, x, weight, bias, initial, y);                                                     \
    }                                                                                                                \
    extern "C" int kinema_conv_backward_##KIND(const ConvSizes* s, const T* x, const T* weight, const T* bias,       \
                                               const T* initial, const T* grad_y, T* grad_x, T* grad_weight,         \
                                               T* grad_bias) {                                                       \
        return conv_backward<T>(*s, x, weight, bias, initial, grad_y, grad_x, grad_weight, grad_bias);               \
    }

KINEMA_EXPORT(float, f32)
KINEMA_EXPORT(double, f64)
