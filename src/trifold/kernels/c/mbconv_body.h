/* The middle of an MBConv block: batch norm, activation, depthwise convolution, and the second norm's statistics, with
   the whole middle's gradient; the body that instances.h includes, after depthwise_body.h and norm_act_body.h.

   What stands between the expansion's output and the depthwise convolution's is never written to memory: rows are
   normalised and activated as they are copied into the scratch. In the gradient, rows of the depthwise output's
   gradient are made there from what reaches the middle's output, and serve both gradients of the convolution. */

#undef PADDED
#define PADDED(channels) (((channels) + BLOCK - 1) / BLOCK * BLOCK)

/* A norm's scale, shift and mean, (3, PADDED(channels)), zeros for channels that are not there. */
static TARGET void NAME(pad_affine)(const struct norm *n, long channels, REAL *to) {
    const long padded = PADDED(channels);
    memset(to, 0, (size_t)(3 * padded) * sizeof(REAL));
    NAME(make_affine)(n, channels, to, to + padded);
    memcpy(to + 2 * padded, n->mean, (size_t)channels * sizeof(REAL));
}

/* Where to read a row of `num` pixels from, whole blocks each: the row itself, or its copy to `room` where the block
   has channels that are not there; *step: between pixels. */
INLINE const REAL *NAME(whole_blocks)(const REAL *from, long *step, long num, long lanes, REAL *room) {
    if (lanes == BLOCK) return from;
    NAME(pack_row)(room, num, from, *step, lanes);
    *step = BLOCK;
    return room;
}

/* to: `num` pixels of from, normalised and activated; slopes: the activation's there, or null. May be in place. */
INLINE void NAME(activate_pixels)(REAL *to, REAL *slopes, const REAL *from, long step, long num, const REAL *scale,
                                  const REAL *shift, const int activation) {
    const V scale_low = LOAD(scale), scale_high = LOAD(scale + LANES);
    const V shift_low = LOAD(shift), shift_high = LOAD(shift + LANES);
    for (long at = 0; at < num * BLOCK; at += BLOCK, from += step) {
        __builtin_prefetch(from + num * step); /* the next row's, as far apart as no hardware foresees */
        const struct NAME(point) low = NAME(activated)(LOAD(from) * scale_low + shift_low, activation);
        const struct NAME(point) high = NAME(activated)(LOAD(from + LANES) * scale_high + shift_high, activation);
        STORE(to + at, low.value);
        STORE(to + at + LANES, high.value);
        if (slopes) {
            STORE(slopes + at, low.slope);
            STORE(slopes + at + LANES, high.slope);
        }
    }
}

static TARGET void NAME(activate)(const struct norm *n, REAL *to, REAL *slopes, const REAL *from, long step, long num,
                                  const REAL *scale, const REAL *shift) {
#define CALL(kind)                                                                         \
    if (slopes) NAME(activate_pixels)(to, slopes, from, step, num, scale, shift, kind);    \
    else NAME(activate_pixels)(to, NULL, from, step, num, scale, shift, kind)
    FOR_EACH_ACTIVATION(CALL)
#undef CALL
}

/* As pack_strip, of the normalised and activated image; affine: at this block; slopes: laid out like `to`, or null.
   What stands for padding is zero from before and is left as it is. */
static TARGET void NAME(pack_active_strip)(const struct window *w, const struct norm *n, REAL *to, REAL *slopes,
                                           const REAL *image, long lanes, const REAL *affine, long begin, long end) {
    const long width = (w->out_width - 1) * w->stride + w->kernel, padded = PADDED(w->channels);
    const long first = begin * w->stride - w->top, rows = (end - begin - 1) * w->stride + w->kernel;
    const long num = NAME(used_pixels)(w);
    for (long row = 0; row < rows; row++) {
        const long y = first + row, place = (row * width + w->left) * BLOCK;
        if (y < 0 || y >= w->height) continue;
        long step = w->channels;
        const REAL *from = NAME(whole_blocks)(image + y * w->width * step, &step, num, lanes, to + place);
        NAME(activate)(n, to + place, slopes ? slopes + place : NULL, from, step, num, affine, affine + padded);
    }
}

/* Adds a row's sums of x - first and of its square; sums: (3, BLOCK), the last are `first`. */
static TARGET void NAME(add_moments)(REAL *sums, const REAL *row, long step, long num) {
    for (long half = 0; half < BLOCK; half += LANES) {
        const V first = LOAD(sums + 2 * BLOCK + half);
        V sum = LOAD(sums + half), square = LOAD(sums + BLOCK + half);
        for (long i = 0; i < num; i++) {
            const V value = LOAD(row + i * step + half) - first;
            sum += value;
            square += value * value;
        }
        STORE(sums + half, sum);
        STORE(sums + BLOCK + half, square);
    }
}

/* sums: (3, BLOCK), of the output's images [from, to), as add_moments takes them. */
static TARGET void NAME(middle_piece)(const struct window *w, const struct norm *n, const REAL *x, const REAL *affine,
                                      const REAL *weights, REAL *out, REAL *sums, long from, long to, long channel,
                                      REAL *scratch) {
    const long lanes = w->channels - channel < BLOCK ? w->channels - channel : BLOCK;
    const long width = (w->out_width - 1) * w->stride + w->kernel;
    const long strip = NAME(strip_rows)(width * BLOCK * sizeof(REAL), w->out_height, w->stride, w->kernel);
    REAL *spare = scratch + ((strip - 1) * w->stride + w->kernel) * width * BLOCK;
    memset(sums, 0, (size_t)(3 * BLOCK) * sizeof(REAL));
    memset(scratch, 0, (size_t)(spare - scratch) * sizeof(REAL));
    for (long number = from; number < to; number++) {
        const REAL *image = x + number * w->height * w->width * w->channels + channel;
        for (long begin = 0; begin < w->out_height; begin += strip) {
            const long end = begin + strip < w->out_height ? begin + strip : w->out_height;
            NAME(pack_active_strip)(w, n, scratch, NULL, image, lanes, affine, begin, end);
            for (long row = begin; row < end; row++) {
                const long y = row * w->stride - w->top, low = y < 0 ? -y : 0;
                const long high = w->height - y < w->kernel ? w->height - y : w->kernel;
                REAL *place = out + ((number * w->out_height + row) * w->out_width) * w->channels + channel;
                NAME(convolve_into)(place, w->channels, w->out_width, lanes, spare,
                                    scratch + ((row - begin) * w->stride + low) * width * BLOCK, width * BLOCK,
                                    weights + low * w->kernel * BLOCK, high - low, w->kernel, w->stride);
                const REAL *done = lanes == BLOCK ? place : spare;
                if (number == from && !row) memcpy(sums + 2 * BLOCK, done, (size_t)BLOCK * sizeof(REAL));
                NAME(add_moments)(sums, done, lanes == BLOCK ? w->channels : BLOCK, w->out_width);
            }
        }
    }
}

/* mean, variance: (channels,), of the output, written. */
static TARGET int NAME(middle_forward)(const struct window *w, const struct norm *n, int threads, const void *x,
                                       const void *weight, void *out, void *mean, void *variance) {
    const long taps = (long)w->kernel * w->kernel, padded = PADDED(w->channels), blocks = padded / BLOCK;
    const long parts = w->batch < BATCH_PARTS ? w->batch : BATCH_PARTS, pieces = parts * blocks;
    const long each = NAME(scratch_reals)(w), pixels = w->out_height * w->out_width;
    REAL *affine = malloc((size_t)((3 + taps) * padded + 3 * pieces * BLOCK + threads * each) * sizeof(REAL));
    if (!affine) return OUT_OF_MEMORY;
    REAL *packed = affine + 3 * padded, *sums = packed + taps * padded, *scratch = sums + 3 * pieces * BLOCK;
    NAME(pad_affine)(n, w->channels, affine);
    memset(packed, 0, (size_t)(taps * padded) * sizeof(REAL));
    NAME(pack_weights)(w, weight, packed);
    long next = 0;
#pragma omp parallel num_threads(threads)
    {
        REAL *own = scratch + omp_get_thread_num() * each;
        for (long piece; (piece = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED)) < pieces;) {
            const long part = piece / blocks, block = piece % blocks;
            NAME(middle_piece)(w, n, x, affine + block * BLOCK, packed + block * taps * BLOCK, out,
                               sums + 3 * piece * BLOCK, part * w->batch / parts, (part + 1) * w->batch / parts,
                               block * BLOCK, own);
        }
    }
    for (long c = 0; c < w->channels; c++) {
        double sum = 0, square = 0;
        for (long part = 0; part < parts; part++) {
            const REAL *own = sums + 3 * (part * blocks + c / BLOCK) * BLOCK + c % BLOCK;
            const double first = own[2 * BLOCK];
            const double count = (double)(((part + 1) * w->batch / parts - part * w->batch / parts) * pixels);
            sum += own[0] + count * first;
            square += own[BLOCK] + 2 * first * own[0] + count * first * first;
        }
        const double centre = sum / (w->batch * pixels), spread = square / (w->batch * pixels) - centre * centre;
        ((REAL *)mean)[c] = (REAL)centre;
        ((REAL *)variance)[c] = (REAL)(spread < 0 ? 0 : spread);
    }
    free(affine);
    return 0;
}

/* What turns the gradient at the second norm's output into that at its input, (BLOCK,) each. */
struct NAME(second) {
    const REAL *scale, *shift, *mean, *constant, *slope;
    REAL gate[2 * VECTOR_BYTES / sizeof(REAL)], added[2 * VECTOR_BYTES / sizeof(REAL)];
};

/* to: (num, BLOCK), from grad at the second norm's output and x at its input, pixels step and x_step apart. */
INLINE void NAME(back_pixels)(REAL *to, const REAL *grad, long step, const REAL *x, long x_step, long num,
                              const struct NAME(second) *by, const int activation) {
    for (long i = 0; i < num; i++, to += BLOCK, grad += step, x += x_step) {
        __builtin_prefetch(grad + num * step);
        __builtin_prefetch(x + num * x_step);
#pragma GCC unroll 2
        for (long half = 0; half < BLOCK; half += LANES) {
            const V scale = LOAD(by->scale + half), value = LOAD(x + half);
            const V given = LOAD(grad + half) * LOAD(by->gate + half) + LOAD(by->added + half);
            const V back = given * NAME(activated)(value * scale + LOAD(by->shift + half), activation).slope;
            const V centred = (value - LOAD(by->mean + half)) * LOAD(by->slope + half);
            STORE(to + half, scale * (back - LOAD(by->constant + half) - centred));
        }
    }
}

static TARGET void NAME(back)(const struct norm *n, REAL *to, const REAL *grad, long step, const REAL *x, long x_step,
                              long num, const struct NAME(second) *by) {
#define CALL(kind) NAME(back_pixels)(to, grad, step, x, x_step, num, by, kind)
    FOR_EACH_ACTIVATION(CALL)
#undef CALL
}

/* out = the gradient at the activation's output times its slope, and the sums of that and of that times x - mean
   added to sums, (2, BLOCK); grad, slopes: (num, BLOCK); out, x: pixels step and x_step apart. */
static TARGET void NAME(first)(REAL *out, long step, const REAL *grad, const REAL *slopes, const REAL *x, long x_step,
                               long num, const REAL *mean, REAL *sums) {
    for (long half = 0; half < BLOCK; half += LANES) {
        const V centre = LOAD(mean + half);
        V sum = LOAD(sums + half), product = LOAD(sums + BLOCK + half);
        for (long i = 0; i < num; i++) {
            const V back = LOAD(grad + i * BLOCK + half) * LOAD(slopes + i * BLOCK + half);
            STORE(out + i * step + half, back);
            sum += back;
            product += back * (LOAD(x + i * x_step + half) - centre);
        }
        STORE(sums + half, sum);
        STORE(sums + BLOCK + half, product);
    }
}

/* grad = scale * (grad - constant - (x - mean) * slope), in place, so that no vector may overlap another. */
static TARGET void NAME(centre_rows)(REAL *grad, const REAL *x, const REAL *affine, const REAL *constants, long rows,
                                     long channels) {
    const long padded = PADDED(channels);
    for (long row = 0; row < rows; row++, grad += channels, x += channels)
        for (long at = 0; at < channels; at += LANES) {
            const long left = channels - at;
            const V centred = NAME(load)(x + at, left) - LOAD(affine + 2 * padded + at);
            const V back = NAME(load)(grad + at, left) - LOAD(constants + at) - centred * LOAD(constants + padded + at);
            NAME(store)(grad + at, LOAD(affine + at) * back, left);
        }
}

struct NAME(middle) {
    const struct window *w;
    const struct norm *n1, *n2;
    const REAL *x1, *x2, *grad, *gate, *added, *affine1, *affine2, *constants, *weights;
    REAL *out;
};

/* Reals of a thread's scratch: active rows of a strip and their slopes, the gradient's rows of the strip with those it
   shares with the one before, and three rows of the input or the output. */
static TARGET long NAME(middle_scratch)(const struct window *w, long *rows_in, long *strip, long *carried) {
    long first, width;
    const long active = (w->out_width - 1) * w->stride + w->kernel;
    NAME(grad_row)(w, &first, &width);
    *strip = NAME(strip_rows)(active * BLOCK * sizeof(REAL), w->out_height, w->stride, w->kernel);
    *rows_in = (*strip - 1) * w->stride + w->kernel;
    *carried = (w->kernel - 1) / w->stride;
    return (2 * *rows_in * active + (*strip + *carried) * width + 3 * (w->width + w->out_width)) * BLOCK;
}

/* A row of the middle's gradient from rooms[0], that at the first activation's output; used: pixels that any output
   needs, none of a row that no output needs. */
static TARGET void NAME(finish_row)(const struct window *w, REAL *out, long lanes, const REAL *x, long used,
                                    REAL *const *rooms, const REAL *slopes, const REAL *mean, REAL *sums) {
    long step = w->channels, x_step = w->channels;
    if (used) x = NAME(whole_blocks)(x, &x_step, used, lanes, rooms[1]);
    if (lanes == BLOCK) NAME(first)(out, step, rooms[0], slopes, x, x_step, used, mean, sums);
    else NAME(first)(rooms[2], BLOCK, rooms[0], slopes, x, x_step, used, mean, sums);
    for (long i = 0; i < w->width; i++)
        if (i >= used) memset(out + i * step, 0, (size_t)lanes * sizeof(REAL));
        else if (lanes < BLOCK) memcpy(out + i * step, rooms[2] + i * BLOCK, (size_t)lanes * sizeof(REAL));
}

/* sums: (taps + 2, BLOCK), of the images [begin, end): the weights' gradient, then the first norm's sums. */
static TARGET void NAME(middle_back_piece)(const struct NAME(middle) *m, REAL *sums, long begin, long end, long block,
                                           REAL *scratch) {
    const struct window *w = m->w;
    const long channel = block * BLOCK, padded = PADDED(w->channels), k = w->kernel, stride = w->stride;
    const long lanes = w->channels - channel < BLOCK ? w->channels - channel : BLOCK;
    const long active = (w->out_width - 1) * stride + k, step = w->channels;
    long rows_in, strip, carried, first, width;
    NAME(middle_scratch)(w, &rows_in, &strip, &carried);
    NAME(grad_row)(w, &first, &width);
    REAL *slopes = scratch + rows_in * active * BLOCK, *grads = slopes + rows_in * active * BLOCK;
    REAL *rooms[3] = {grads + (strip + carried) * width * BLOCK};
    rooms[1] = rooms[0] + (w->width + w->out_width) * BLOCK, rooms[2] = rooms[1] + (w->width + w->out_width) * BLOCK;
    REAL *norm_sums = sums + k * k * BLOCK;
    const long used = NAME(used_pixels)(w);
    struct NAME(second) by = {.scale = m->affine2 + channel,
                              .shift = m->affine2 + padded + channel,
                              .mean = m->affine2 + 2 * padded + channel,
                              .constant = m->constants + channel,
                              .slope = m->constants + padded + channel,
                              .gate = {0},
                              .added = {0}};
    for (long lane = 0; lane < BLOCK && !m->gate; lane++) by.gate[lane] = 1;
    memset(sums, 0, (size_t)((k * k + 2) * BLOCK) * sizeof(REAL));
    memset(scratch, 0, (size_t)(rooms[0] - scratch) * sizeof(REAL));
    for (long number = begin; number < end; number++) {
        if (m->gate) {
            memcpy(by.gate, m->gate + number * step + channel, (size_t)lanes * sizeof(REAL));
            memcpy(by.added, m->added + number * step + channel, (size_t)lanes * sizeof(REAL));
        }
        const REAL *image = m->x1 + number * w->height * w->width * step + channel;
        REAL *out = m->out + number * w->height * w->width * step + channel;
        long kept = 0, done = 0; /* rows of the gradient kept from the strip before; rows of the input finished */
        for (long from = 0; from < w->out_height; from += strip) {
            const long to = from + strip < w->out_height ? from + strip : w->out_height, low = from - kept;
            NAME(pack_active_strip)(w, m->n1, scratch, slopes, image, lanes, m->affine1 + channel, from, to);
            for (long y = from; y < to; y++) {
                const long place = ((number * w->out_height + y) * w->out_width) * step + channel;
                long grad_step = step, x_step = step;
                const REAL *grad = NAME(whole_blocks)(m->grad + place, &grad_step, w->out_width, lanes, rooms[0]);
                const REAL *x = NAME(whole_blocks)(m->x2 + place, &x_step, w->out_width, lanes, rooms[1]);
                NAME(back)(m->n2, grads + ((y - low) * width - first) * BLOCK, grad, grad_step, x, x_step, w->out_width, &by);
            }
            for (long tap = 0; tap < k; tap++) {
                long top = from, bottom = to;
                NAME(rows_of_tap)(w, tap, &top, &bottom);
                if (top < bottom)
                    NAME(correlate)(sums + tap * k * BLOCK, scratch + ((top - from) * stride + tap) * active * BLOCK,
                                    stride * active * BLOCK, grads + ((top - low) * width - first) * BLOCK,
                                    width * BLOCK, BLOCK, bottom - top, w->out_width, (int)k, (int)stride);
            }
            const long rows = (to - from - 1) * stride + k;
            long ready = to < w->out_height ? to * stride - w->top : w->height;
            if (ready > w->height) ready = w->height;
            for (; done < ready; done++) {
                NAME(input_grad_row)(w, rooms[0], BLOCK, grads, low, first, width, m->weights + block * k * k * BLOCK, done,
                                     BLOCK, NULL);
                const long row = done - from * stride + w->top; /* in the scratch */
                NAME(finish_row)(w, out + done * w->width * step, lanes, image + done * w->width * step, row < rows ? used : 0,
                                 rooms, slopes + (row * active + w->left) * BLOCK,
                                 m->affine1 + 2 * padded + channel, norm_sums);
            }
            kept = to - low < carried ? to - low : carried;
            memmove(grads, grads + (to - low - kept) * width * BLOCK, (size_t)(kept * width * BLOCK) * sizeof(REAL));
        }
    }
}

/* gate, added, sums: as `gated` has them, or null. Written: out, the gradient at x1; for_weight, that of the
   convolution, (channels, kernel, kernel); those of the norms. */
static TARGET int NAME(middle_backward)(const struct window *w, const struct norm *n1, const struct norm *n2,
                                        int threads, const void *x1, const void *x2, const void *grad,
                                        const void *gate, const void *added, const void *sums_gated, const void *weight,
                                        void *out, void *for_weight, void *weight1, void *bias1, void *weight2,
                                        void *bias2) {
    const long taps = (long)w->kernel * w->kernel, channels = w->channels, padded = PADDED(channels);
    const long blocks = padded / BLOCK, parts = w->batch < BATCH_PARTS ? w->batch : BATCH_PARTS;
    const long pieces = parts * blocks, sums_each = (taps + 2) * BLOCK;
    long rows_in, strip, carried;
    const long each = NAME(middle_scratch)(w, &rows_in, &strip, &carried);
    REAL *affine1 = malloc((size_t)((10 + taps) * padded + pieces * sums_each + threads * each) * sizeof(REAL));
    if (!affine1) return OUT_OF_MEMORY;
    REAL *affine2 = affine1 + 3 * padded, *constants = affine2 + 3 * padded, *constants1 = constants + 2 * padded;
    REAL *packed = constants1 + 2 * padded, *sums = packed + taps * padded, *scratch = sums + pieces * sums_each;
    NAME(pad_affine)(n1, channels, affine1);
    NAME(pad_affine)(n2, channels, affine2);
    memset(constants, 0, (size_t)((4 + taps) * padded) * sizeof(REAL));
    NAME(pack_weights_by_remainder)(w, weight, packed);
    const struct rows inner = {w->batch, w->out_height * w->out_width, channels};
    const struct NAME(gated) gated = {gate, added, sums_gated};
    if (NAME(norm_gradients)(&inner, n2, threads, x2, grad, &gated, weight2, bias2, constants, constants + padded)) {
        free(affine1);
        return OUT_OF_MEMORY;
    }
    const struct NAME(middle) middle = {w, n1, n2, x1, x2, grad, gate, added, affine1, affine2, constants, packed, out};
    long next = 0;
#pragma omp parallel num_threads(threads)
    {
        REAL *own = scratch + omp_get_thread_num() * each;
        for (long piece; (piece = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED)) < pieces;) {
            const long part = piece / blocks, block = piece % blocks;
            NAME(middle_back_piece)(&middle, sums + piece * sums_each, part * w->batch / parts,
                                    (part + 1) * w->batch / parts, block, own);
        }
    }
    const double count1 = (double)(w->batch * w->height * w->width);
    for (long c = 0; c < channels; c++) {
        const double deviation = sqrt(((const REAL *)n1->variance)[c] + n1->epsilon);
        double total[2] = {0, 0};
        for (long tap = 0; tap < taps + 2; tap++) {
            double sum = 0;
            for (long part = 0; part < parts; part++)
                sum += sums[(part * blocks + c / BLOCK) * sums_each + tap * BLOCK + c % BLOCK];
            if (tap < taps) ((REAL *)for_weight)[c * taps + tap] = (REAL)sum;
            else total[tap - taps] = sum;
        }
        ((REAL *)bias1)[c] = (REAL)total[0];
        ((REAL *)weight1)[c] = (REAL)(total[1] / deviation);
        constants1[c] = (REAL)(total[0] / count1);
        constants1[padded + c] = (REAL)(total[1] / count1 / deviation / deviation);
    }
    const long all = w->batch * w->height * w->width, part_rows = rows_of_a_part(channels, sizeof(REAL));
    const long row_parts = (all + part_rows - 1) / part_rows;
    next = 0;
#pragma omp parallel num_threads(threads)
    for (long part; (part = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED)) < row_parts;) {
        const long begin = part * part_rows, rows = all - begin < part_rows ? all - begin : part_rows;
        NAME(centre_rows)((REAL *)out + begin * channels, (const REAL *)x1 + begin * channels, affine1, constants1, rows,
                          channels);
    }
    free(affine1);
    return 0;
}
