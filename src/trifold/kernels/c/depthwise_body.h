/* Depthwise convolution of channels-last images and its two gradients; the body that instances.h includes.

   A piece of work is one block of channels of one image, or of a few images for the weights' gradient. Its rows are
   first copied into a scratch of BLOCK channels a pixel, with zeros for the padding and for channels that are not
   there, so that the loops over pixels and taps know neither edges nor odd channels. Every sum is taken in an order
   that depends on the shape alone. */

#undef BLOCK
#define BLOCK (2 * LANES)

/* A row of `num` pixels, whole blocks each, from pixels `step` apart; channels that are not there are zeros. */
static TARGET void NAME(pack_row)(REAL *to, long num, const REAL *from, long step, long lanes) {
    if (lanes == BLOCK) {
        for (long i = 0; i < num; i++, to += BLOCK, from += step) {
            __builtin_prefetch(from + num * step); /* the next row's, as far apart as no hardware foresees */
            STORE(to, LOAD(from));
            STORE(to + LANES, LOAD(from + LANES));
        }
        return;
    }
    for (long i = 0; i < num; i++, to += BLOCK, from += step)
        for (long lane = 0; lane < BLOCK; lane++) to[lane] = lane < lanes ? from[lane] : 0;
}

/* out[i] = the sum over rows and taps of in[row][i * in_step + tap] * weights[row][tap], for `num` pixels i. */
INLINE void NAME(convolve_pixels)(REAL *out, long out_step, const REAL *in, long in_row, const REAL *weights, long rows,
                                  const int num, const int taps, const int in_step) {
    V low[4] = {{0}}, high[4] = {{0}};
    for (long row = 0; row < rows; row++, in += in_row, weights += taps * BLOCK) {
#pragma GCC unroll 8
        for (int tap = 0; tap < taps; tap++) {
            const V weight_low = LOAD(weights + tap * BLOCK), weight_high = LOAD(weights + tap * BLOCK + LANES);
#pragma GCC unroll 4
            for (int i = 0; i < num; i++) {
                low[i] += LOAD(in + (i * in_step + tap) * BLOCK) * weight_low;
                high[i] += LOAD(in + (i * in_step + tap) * BLOCK + LANES) * weight_high;
            }
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < num; i++) {
        STORE(out + i * out_step, low[i]);
        STORE(out + i * out_step + LANES, high[i]);
    }
}

INLINE void NAME(convolve_row)(REAL *out, long out_step, long num, const REAL *in, long in_row, const REAL *weights,
                               long rows, const int taps, const int in_step) {
    for (; num >= 4; num -= 4, out += 4 * out_step, in += 4 * in_step * BLOCK)
        NAME(convolve_pixels)(out, out_step, in, in_row, weights, rows, 4, taps, in_step);
    if (num == 3) NAME(convolve_pixels)(out, out_step, in, in_row, weights, rows, 3, taps, in_step);
    if (num == 2) NAME(convolve_pixels)(out, out_step, in, in_row, weights, rows, 2, taps, in_step);
    if (num == 1) NAME(convolve_pixels)(out, out_step, in, in_row, weights, rows, 1, taps, in_step);
}

static TARGET void NAME(convolve)(REAL *out, long out_step, long num, const REAL *in, long in_row, const REAL *weights,
                                  long rows, int taps, int in_step) {
#define CASE(t, s) \
    case 2 * (t) + (s): NAME(convolve_row)(out, out_step, num, in, in_row, weights, rows, t, s); break;
    switch (2 * taps + in_step) {
        CASE(1, 1) CASE(2, 1) CASE(3, 1) CASE(4, 1) CASE(5, 1) CASE(7, 1)
        CASE(3, 2) CASE(5, 2) CASE(7, 2)
    }
#undef CASE
}

/* The same into `lanes` channels only: through `spare`, which has room for num pixels. */
static TARGET void NAME(convolve_into)(REAL *out, long out_step, long num, long lanes, REAL *spare, const REAL *in,
                                       long in_row, const REAL *weights, long rows, int taps, int in_step) {
    if (lanes == BLOCK) {
        NAME(convolve)(out, out_step, num, in, in_row, weights, rows, taps, in_step);
        return;
    }
    NAME(convolve)(spare, BLOCK, num, in, in_row, weights, rows, taps, in_step);
    for (long i = 0; i < num; i++)
        for (long lane = 0; lane < lanes; lane++) out[i * out_step + lane] = spare[i * BLOCK + lane];
}

/* How many rows of the output's side are worked on at a time, so that their input rows fit the scratch. */
static TARGET long NAME(strip_rows)(long row_bytes, long rows, long stride, long kernel) {
    const long fitting = (SCRATCH_BYTES / row_bytes - kernel) / stride + 1;
    return fitting < 1 ? 1 : fitting < rows ? fitting : rows;
}

static TARGET long NAME(scratch_reals)(const struct window *w) {
    /* The input's rows of a strip, padded; the output's or its gradient's rows, which are copied for odd channels. */
    const long width = (w->out_width - 1) * w->stride + w->kernel;
    const long strip = NAME(strip_rows)(width * BLOCK * sizeof(REAL), w->out_height, w->stride, w->kernel);
    return (((strip - 1) * w->stride + w->kernel) * width + strip * w->out_width) * BLOCK;
}

/* How many of a row's pixels any output needs. */
INLINE long NAME(used_pixels)(const struct window *w) {
    const long width = (w->out_width - 1) * w->stride + w->kernel - w->left;
    return w->width < width ? w->width : width;
}

/* The input's rows that the outputs [begin, end) need, one after another. What stands for padding is zero from before
   and is left as it is, and so are rows that are not there. */
static TARGET void NAME(pack_strip)(const struct window *w, REAL *to, const REAL *image, long lanes, long begin,
                                    long end) {
    const long width = (w->out_width - 1) * w->stride + w->kernel;
    const long first = begin * w->stride - w->top, rows = (end - begin - 1) * w->stride + w->kernel;
    const long used = NAME(used_pixels)(w);
    for (long row = 0; row < rows; row++) {
        const long y = first + row;
        if (y >= 0 && y < w->height)
            NAME(pack_row)(to + (row * width + w->left) * BLOCK, used, image + y * w->width * w->channels, w->channels,
                           lanes);
    }
}

/* The images [from, to); weights: (taps, BLOCK) of this block of channels. */
static TARGET void NAME(forward_piece)(const struct window *w, const REAL *x, const REAL *weights, REAL *out, long from,
                                       long to, long channel, REAL *scratch) {
    const long lanes = w->channels - channel < BLOCK ? w->channels - channel : BLOCK;
    const long width = (w->out_width - 1) * w->stride + w->kernel;
    const long strip = NAME(strip_rows)(width * BLOCK * sizeof(REAL), w->out_height, w->stride, w->kernel);
    REAL *spare = scratch + ((strip - 1) * w->stride + w->kernel) * width * BLOCK;
    memset(scratch, 0, (size_t)(spare - scratch) * sizeof(REAL));
    for (long number = from; number < to; number++) {
        const REAL *image = x + number * w->height * w->width * w->channels + channel;
        for (long begin = 0; begin < w->out_height; begin += strip) {
            const long end = begin + strip < w->out_height ? begin + strip : w->out_height;
            NAME(pack_strip)(w, scratch, image, lanes, begin, end);
            for (long row = begin; row < end; row++) {
                const long y = row * w->stride - w->top, low = y < 0 ? -y : 0;
                const long high = w->height - y < w->kernel ? w->height - y : w->kernel;
                NAME(convolve_into)(out + ((number * w->out_height + row) * w->out_width) * w->channels + channel,
                                    w->channels, w->out_width, lanes, spare,
                                    scratch + ((row - begin) * w->stride + low) * width * BLOCK, width * BLOCK,
                                    weights + low * w->kernel * BLOCK, high - low, w->kernel, w->stride);
            }
        }
    }
}

static TARGET void NAME(pack_weights)(const struct window *w, const REAL *weight, REAL *to) {
    const long taps = (long)w->kernel * w->kernel;
    for (long channel = 0; channel < w->channels; channel++)
        for (long tap = 0; tap < taps; tap++)
            to[(channel / BLOCK * taps + tap) * BLOCK + channel % BLOCK] = weight[channel * taps + tap];
}

/* The input's gradient gathers: a pixel x has the taps t with (x + left - t) divisible by the stride. Pixels of equal
   remainder share their taps, so each remainder is a convolution of stride 1 over the output's gradient with every
   stride-th tap, last first. The packed weights hold the taps of each pair of remainders together. */
static TARGET void NAME(pack_weights_by_remainder)(const struct window *w, const REAL *weight, REAL *to) {
    const long k = w->kernel, stride = w->stride, taps = k * k;
    for (long channel = 0; channel < w->channels; channel++) {
        REAL *place = to + channel / BLOCK * taps * BLOCK + channel % BLOCK;
        for (long b = 0; b < stride; b++)
            for (long a = 0; a < stride; a++)
                for (long ty = (k - 1 - b) / stride; ty >= 0; ty--)
                    for (long tx = (k - 1 - a) / stride; tx >= 0; tx--, place += BLOCK)
                        *place = weight[channel * taps + (b + stride * ty) * k + a + stride * tx];
    }
}

/* Pixels of one remainder along a side: from `first` on, `num` of them, each with `taps` taps, and the first one's
   last tap falls on the output's pixel `from`. */
struct NAME(side) {
    long first, num, taps, from;
};

/* a / stride and a % stride for a stride of 1 or 2 and a from 0: processors divide slowly. */
#undef QUOTIENT
#undef REMAINDER
#define QUOTIENT(a, stride) ((a) >> ((stride) - 1))
#define REMAINDER(a, stride) ((a) & ((stride) - 1))

INLINE struct NAME(side) NAME(side_of)(long remainder, long stride, long kernel, long padding, long size) {
    const long first = REMAINDER(remainder - padding + 2 * kernel, stride); /* padding is less than the kernel */
    const long taps = remainder < kernel ? QUOTIENT(kernel - 1 - remainder, stride) + 1 : 0;
    return (struct NAME(side)){.first = first,
                               .num = size > first ? QUOTIENT(size - first - 1, stride) + 1 : 0,
                               .taps = taps,
                               .from = QUOTIENT(first + padding - remainder, stride) - (taps - 1)};
}

/* The row of the output's gradient with what any pixel of the input needs beside it: its first pixel, 0 or before, and
   its width. */
INLINE void NAME(grad_row)(const struct window *w, long *first, long *width) {
    long last = w->out_width - 1;
    *first = 0;
    for (long a = 0; a < w->stride; a++) {
        const struct NAME(side) side = NAME(side_of)(a, w->stride, w->kernel, w->left, w->width);
        if (!side.num) continue;
        const long end = side.from + side.taps - 1 + side.num - 1;
        if (side.from < *first) *first = side.from;
        if (end > last) last = end;
    }
    *width = last - *first + 1;
}

static TARGET long NAME(grad_strip_rows)(const struct window *w, long width) {
    return NAME(strip_rows)(width * BLOCK * sizeof(REAL), (w->height + w->stride - 1) / w->stride, 1, w->kernel) *
           w->stride;
}

static TARGET long NAME(grad_scratch_reals)(const struct window *w) {
    long first, width;
    NAME(grad_row)(w, &first, &width);
    const long strip = NAME(grad_strip_rows)(w, width);
    return ((strip / w->stride + w->kernel) * width + w->width) * BLOCK;
}

/* One row of the gradient at the convolution's input, pixels `step` apart, from the scratch of the output's gradient
   whose first row is `low` and whose rows are as grad_row says; weights: as pack_weights_by_remainder orders them. */
static TARGET void NAME(input_grad_row)(const struct window *w, REAL *row, long step, const REAL *grads, long low,
                                        long first, long width, const REAL *weights, long y, long lanes, REAL *spare) {
    const long k = w->kernel, stride = w->stride, b = REMAINDER(y + w->top, stride), rows = QUOTIENT(k - 1 - b, stride) + 1;
    const long top = QUOTIENT(y + w->top - b, stride) - (rows - 1), skipped = top < 0 ? -top : 0;
    const long used = (top + rows > w->out_height ? w->out_height - top : rows) - skipped;
    for (long before = 0; before < b; before++) weights += (QUOTIENT(k - 1 - before, stride) + 1) * k * BLOCK;
    for (long a = 0; a < stride; a++) {
        const struct NAME(side) side = NAME(side_of)(a, stride, k, w->left, w->width);
        if (side.num)
            NAME(convolve_into)(row + side.first * step, stride * step, side.num, lanes, spare,
                                grads + ((top + skipped - low) * width + side.from - first) * BLOCK, width * BLOCK,
                                weights + skipped * side.taps * BLOCK, used, (int)side.taps, 1);
        weights += rows * side.taps * BLOCK;
    }
}

/* The images [from, to); weights: of this block, as pack_weights_by_remainder orders them. */
static TARGET void NAME(input_piece)(const struct window *w, const REAL *grad, const REAL *weights, REAL *out, long from,
                                     long to, long channel, REAL *scratch) {
    const long lanes = w->channels - channel < BLOCK ? w->channels - channel : BLOCK;
    const long k = w->kernel, stride = w->stride;
    long first, width;
    NAME(grad_row)(w, &first, &width);
    const long strip = NAME(grad_strip_rows)(w, width);
    REAL *spare = scratch + (strip / stride + k) * width * BLOCK;
    memset(scratch, 0, (size_t)(spare - scratch) * sizeof(REAL));
    for (long number = from; number < to; number++) {
        const REAL *image = grad + number * w->out_height * w->out_width * w->channels + channel;
        for (long begin = 0; begin < w->height; begin += strip) {
            const long end = begin + strip < w->height ? begin + strip : w->height;
            long low = begin + w->top - (k - 1), high = QUOTIENT(end - 1 + w->top, stride) + 1;
            low = low <= 0 ? 0 : QUOTIENT(low + stride - 1, stride);
            if (high > w->out_height) high = w->out_height;
            for (long y = low; y < high; y++)
                NAME(pack_row)(scratch + ((y - low) * width - first) * BLOCK, w->out_width,
                               image + y * w->out_width * w->channels, w->channels, lanes);
            for (long y = begin; y < end; y++) {
                REAL *row = out + (number * w->height + y) * w->width * w->channels + channel;
                NAME(input_grad_row)(w, row, w->channels, scratch, low, first, width, weights, y, lanes, spare);
            }
        }
    }
}

/* sums: (kernel, BLOCK) of one row of taps; adds the products of the strip's rows of x with rows of the gradient. */
INLINE void NAME(correlate_rows)(REAL *sums, const REAL *x, long x_row, const REAL *grad, long grad_row, long grad_step,
                                 long rows, long num, const int taps, const int stride) {
    V low[7] = {{0}}, high[7] = {{0}};
    for (long row = 0; row < rows; row++) {
        const REAL *from = x + row * x_row, *with = grad + row * grad_row;
        for (long i = 0; i < num; i++, from += stride * BLOCK, with += grad_step) {
            const V grad_low = LOAD(with), grad_high = LOAD(with + LANES);
#pragma GCC unroll 8
            for (int tap = 0; tap < taps; tap++) {
                low[tap] += LOAD(from + tap * BLOCK) * grad_low;
                high[tap] += LOAD(from + tap * BLOCK + LANES) * grad_high;
            }
        }
    }
#pragma GCC unroll 8
    for (int tap = 0; tap < taps; tap++) {
        STORE(sums + tap * BLOCK, LOAD(sums + tap * BLOCK) + low[tap]);
        STORE(sums + tap * BLOCK + LANES, LOAD(sums + tap * BLOCK + LANES) + high[tap]);
    }
}

static TARGET void NAME(correlate)(REAL *sums, const REAL *x, long x_row, const REAL *grad, long grad_row,
                                   long grad_step, long rows, long num, int taps, int stride) {
#define CASE(t, s) \
    case 2 * (t) + (s): NAME(correlate_rows)(sums, x, x_row, grad, grad_row, grad_step, rows, num, t, s); break;
    switch (2 * taps + stride) {
        CASE(1, 1) CASE(3, 1) CASE(5, 1) CASE(7, 1) CASE(3, 2) CASE(5, 2) CASE(7, 2)
    }
#undef CASE
}

/* Narrows the output's rows [*low, *high) to those whose input row `row * stride - top + tap` exists. */
INLINE void NAME(rows_of_tap)(const struct window *w, long tap, long *low, long *high) {
    const long before = w->top - tap, first = before > 0 ? QUOTIENT(before + w->stride - 1, w->stride) : 0;
    const long last = w->height - 1 + before, end = last < 0 ? 0 : QUOTIENT(last, w->stride) + 1;
    if (*low < first) *low = first;
    if (*high > end) *high = end;
}

/* sums: (taps, BLOCK), of the images [begin, end). */
static TARGET void NAME(weight_piece)(const struct window *w, const REAL *x, const REAL *grad, REAL *sums, long begin,
                                      long end, long channel, REAL *scratch) {
    const long lanes = w->channels - channel < BLOCK ? w->channels - channel : BLOCK;
    const long k = w->kernel, stride = w->stride, width = (w->out_width - 1) * stride + k;
    const long strip = NAME(strip_rows)(width * BLOCK * sizeof(REAL), w->out_height, stride, k);
    REAL *spare = scratch + ((strip - 1) * stride + k) * width * BLOCK;
    memset(sums, 0, (size_t)(k * k * BLOCK) * sizeof(REAL));
    memset(scratch, 0, (size_t)(spare - scratch) * sizeof(REAL));
    for (long number = begin; number < end; number++) {
        const REAL *image = x + number * w->height * w->width * w->channels + channel;
        for (long from = 0; from < w->out_height; from += strip) {
            const long to = from + strip < w->out_height ? from + strip : w->out_height;
            const REAL *grads = grad + (number * w->out_height + from) * w->out_width * w->channels + channel;
            long grad_step = w->channels;
            NAME(pack_strip)(w, scratch, image, lanes, from, to);
            if (lanes < BLOCK) {
                NAME(pack_row)(spare, (to - from) * w->out_width, grads, grad_step, lanes);
                grads = spare, grad_step = BLOCK;
            }
            for (long tap = 0; tap < k; tap++) {
                long low = from, high = to;
                NAME(rows_of_tap)(w, tap, &low, &high);
                if (low < high)
                    NAME(correlate)(sums + tap * k * BLOCK, scratch + ((low - from) * stride + tap) * width * BLOCK,
                                    stride * width * BLOCK, grads + (low - from) * w->out_width * grad_step,
                                    w->out_width * grad_step, grad_step, high - low, w->out_width, (int)k, (int)stride);
            }
        }
    }
}

/* The weights' gradient from the sums of each part of the batch, (parts, blocks, taps, BLOCK), in order. */
static TARGET void NAME(add_parts)(const struct window *w, const REAL *sums, long parts, REAL *out) {
    const long taps = (long)w->kernel * w->kernel, blocks = (w->channels + BLOCK - 1) / BLOCK;
    for (long channel = 0; channel < w->channels; channel++)
        for (long tap = 0; tap < taps; tap++) {
            double sum = 0;
            for (long part = 0; part < parts; part++)
                sum += sums[((part * blocks + channel / BLOCK) * taps + tap) * BLOCK + channel % BLOCK];
            out[channel * taps + tap] = (REAL)sum;
        }
}

/* The convolution of all images, or, backward, the gradient at its input from that at its output. */
static TARGET int NAME(convolve_images)(const struct window *w, int threads, int backward, const void *images,
                                        const void *weight, void *out) {
    const long taps = (long)w->kernel * w->kernel, blocks = (w->channels + BLOCK - 1) / BLOCK;
    const long each = backward ? NAME(grad_scratch_reals)(w) : NAME(scratch_reals)(w);
    const long parts = w->batch < BATCH_PARTS ? w->batch : BATCH_PARTS, pieces = parts * blocks;
    REAL *packed = malloc((size_t)(blocks * taps * BLOCK + threads * each) * sizeof(REAL));
    if (!packed) return OUT_OF_MEMORY;
    memset(packed, 0, (size_t)(blocks * taps * BLOCK) * sizeof(REAL)); /* channels that are not there */
    (backward ? NAME(pack_weights_by_remainder) : NAME(pack_weights))(w, weight, packed);
    REAL *scratch = packed + blocks * taps * BLOCK;
    long next = 0;
#pragma omp parallel num_threads(threads)
    {
        REAL *own = scratch + omp_get_thread_num() * each;
        for (long piece; (piece = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED)) < pieces;) {
            const long part = piece / blocks, block = piece % blocks;
            (backward ? NAME(input_piece) : NAME(forward_piece))(w, images, packed + block * taps * BLOCK, out,
                                                                 part * w->batch / parts, (part + 1) * w->batch / parts,
                                                                 block * BLOCK, own);
        }
    }
    free(packed);
    return 0;
}

static TARGET int NAME(depthwise_forward)(const struct window *w, int threads, const void *x, const void *weight,
                                          void *out) {
    return NAME(convolve_images)(w, threads, 0, x, weight, out);
}

static TARGET int NAME(depthwise_input_grad)(const struct window *w, int threads, const void *grad, const void *weight,
                                             void *out) {
    return NAME(convolve_images)(w, threads, 1, grad, weight, out);
}

static TARGET int NAME(depthwise_weight_grad)(const struct window *w, int threads, const void *x, const void *grad,
                                              void *out) {
    const long taps = (long)w->kernel * w->kernel, blocks = (w->channels + BLOCK - 1) / BLOCK;
    const long parts = w->batch < BATCH_PARTS ? w->batch : BATCH_PARTS;
    const long each = NAME(scratch_reals)(w), pieces = parts * blocks;
    REAL *sums = malloc((size_t)(pieces * taps * BLOCK + threads * each + 1) * sizeof(REAL));
    if (!sums) return OUT_OF_MEMORY;
    REAL *scratch = sums + pieces * taps * BLOCK;
    long next = 0;
#pragma omp parallel num_threads(threads)
    {
        REAL *own = scratch + omp_get_thread_num() * each;
        for (long piece; (piece = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED)) < pieces;) {
            const long part = piece / blocks, block = piece % blocks;
            NAME(weight_piece)(w, x, grad, sums + piece * taps * BLOCK, part * w->batch / parts,
                               (part + 1) * w->batch / parts, block * BLOCK, own);
        }
    }
    NAME(add_parts)(w, sums, parts, out);
    free(sums);
    return 0;
}
