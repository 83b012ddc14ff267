/* Batch norm by the batch's own statistics, an activation, and a factor for each image and channel, over rows of
   channels (channels-last images); the body that instances.h includes.

   Rows are cut into parts that depend on the shape alone; each part's sums are taken in its own order and the parts'
   sums are added in theirs, in double, so that results are equal for any number of threads. Nothing but the input is
   needed for gradients: what stands between the convolution and the output is computed again. */

#undef EXP_SHIFT
#undef EXP_BITS
#undef EXP_LARGEST
#undef EXP_DEGREE
#undef EXP_SERIES
#define IS_FLOAT (sizeof(REAL) == 4)
#define EXP_SHIFT (IS_FLOAT ? (REAL)12582912.0 : (REAL)6755399441055744.0) /* 1.5 * 2^23, 1.5 * 2^52: rounds */
#define EXP_BITS (IS_FLOAT ? 23 : 52)
#define EXP_LARGEST (IS_FLOAT ? (REAL)126.0 : (REAL)1022.0)
#define EXP_DEGREE (IS_FLOAT ? 5 : 13)
#define EXP_SERIES (IS_FLOAT ? NAME(near_series) : NAME(taylor_series))

typedef INTEGER NAME(integers) __attribute__((vector_size(VECTOR_BYTES)));
#undef VI
#define VI NAME(integers)
#undef SPLAT
#define SPLAT(number) ((V){0} + (REAL)(number))
#undef CHOOSE
/* Where the mask has all bits set the first, else the second. */
#define CHOOSE(mask, yes, no) ((V)(((VI)(mask) & (VI)(yes)) | (~(VI)(mask) & (VI)(no))))

/* 2^x on [-1/2, 1/2]: the polynomial of the least largest relative error, 7.5e-8; ln(2)^n / n!, 4e-18. */
static const double NAME(near_series)[] = {1.0000000716546822,  0.6931469670647331,   0.24022119723848476,
                                           0.05550713273542585, 0.009675541334216064, 0.00132764719794792};
static const double NAME(taylor_series)[] = {1.0, 0.6931471805599453, 0.24022650695910072, 0.05550410866482158,
                                             0.009618129107628477, 0.0013333558146428443, 0.0001540353039338161, 1.5252733804059841e-05,
                                             1.321548679014431e-06, 1.01780860092397e-07, 7.054911620801123e-09, 4.4455382718708116e-10,
                                             2.5678435993488206e-11, 1.3691488853904128e-12};

/* 2^x, x within +-EXP_LARGEST: a polynomial of what is left of x by the nearest integer, which goes to the exponent. */
INLINE V NAME(power_of_two)(V x) {
    const V shifted = x + SPLAT(EXP_SHIFT), rest = x - (shifted - SPLAT(EXP_SHIFT));
    V series = SPLAT(EXP_SERIES[EXP_DEGREE]);
#pragma GCC unroll 16
    for (int power = EXP_DEGREE - 1; power >= 0; power--) series = series * rest + SPLAT(EXP_SERIES[power]);
    return (V)((VI)series + ((VI)shifted << EXP_BITS));
}

INLINE V NAME(sigmoid)(V x) {
    const V exponent = MAXIMUM(MINIMUM(x * SPLAT(-1.4426950408889634), SPLAT(EXP_LARGEST)), SPLAT(-EXP_LARGEST));
    return SPLAT(1) / (SPLAT(1) + NAME(power_of_two)(exponent));
}

/* An activation's value at z and its slope there. */
struct NAME(point) {
    V value, slope;
};

INLINE struct NAME(point) NAME(activated)(V z, const int activation) {
    const V zero = SPLAT(0), one = SPLAT(1);
    if (activation == SILU) {
        const V gate = NAME(sigmoid)(z);
        return (struct NAME(point)){z * gate, gate * (one + z * (one - gate))};
    }
    if (activation == RELU) return (struct NAME(point)){CHOOSE(z <= zero, zero, z), CHOOSE(z <= zero, zero, one)};
    if (activation == RELU6) {
        const V within = CHOOSE(z <= zero, zero, CHOOSE(z >= SPLAT(6), SPLAT(6), z));
        return (struct NAME(point)){within, CHOOSE((z <= zero) | (z >= SPLAT(6)), zero, one)};
    }
    if (activation == HARD_SWISH) {
        const V value = CHOOSE(z <= SPLAT(-3), zero, CHOOSE(z >= SPLAT(3), z, z * (z + SPLAT(3)) * SPLAT(1.0 / 6)));
        const V slope = CHOOSE(z <= SPLAT(-3), zero, CHOOSE(z >= SPLAT(3), one, z * SPLAT(1.0 / 3) + SPLAT(0.5)));
        return (struct NAME(point)){value, slope};
    }
    return (struct NAME(point)){z, one};
}

/* Vectors at the end of a row of channels overlap the ones before; where there are fewer channels than lanes, the
   row is read and written in part. */
INLINE V NAME(load)(const REAL *from, long channels) {
    if (channels >= LANES) return LOAD(from);
    REAL some[VECTOR_BYTES / sizeof(REAL)] = {0};
    memcpy(some, from, (size_t)channels * sizeof(REAL));
    return LOAD(some);
}

INLINE void NAME(store)(REAL *to, V value, long channels) {
    if (channels >= LANES) {
        STORE(to, value);
        return;
    }
    REAL some[VECTOR_BYTES / sizeof(REAL)];
    STORE(some, value);
    memcpy(to, some, (size_t)channels * sizeof(REAL));
}

/* Where the vector that should begin at `channel` begins, so that it ends with the channels at the latest. */
#undef BEGIN
#define BEGIN(channel) (channels < LANES ? 0 : (channel) + LANES > channels ? channels - LANES : (channel))

/* A channel's numbers: what turns x into the activation's input, and x's mean. */
struct NAME(affine) {
    const REAL *scale, *shift, *mean;
};

static TARGET void NAME(make_affine)(const struct norm *n, long channels, REAL *scale, REAL *shift) {
    const REAL *weight = n->weight, *bias = n->bias, *mean = n->mean, *variance = n->variance;
    for (long c = 0; c < channels; c++) {
        const double factor = weight[c] / sqrt(variance[c] + n->epsilon);
        scale[c] = (REAL)factor;
        shift[c] = (REAL)(bias[c] - mean[c] * factor);
    }
}

/* Sums of x - first and of its square; first: any row, whose values keep the sums from cancelling. */
INLINE void NAME(moments_of)(const REAL *x, const REAL *first, long rows, long channels, REAL *sums, long from,
                             const int vectors) {
    V shift[4], sum[4] = {{0}}, square[4] = {{0}};
    long begin[4];
#pragma GCC unroll 4
    for (int i = 0; i < vectors; i++) {
        begin[i] = BEGIN(from + i * LANES);
        shift[i] = NAME(load)(first + begin[i], channels);
    }
    for (long row = 0; row < rows; row++) {
#pragma GCC unroll 4
        for (int i = 0; i < vectors; i++) {
            const V value = NAME(load)(x + row * channels + begin[i], channels) - shift[i];
            sum[i] += value;
            square[i] += value * value;
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < vectors; i++) {
        NAME(store)(sums + begin[i], sum[i], channels);
        NAME(store)(sums + channels + begin[i], square[i], channels);
    }
}

/* sums: (2, channels). */
static TARGET void NAME(moments)(const REAL *x, const REAL *first, long rows, long channels, REAL *sums) {
    long channel = 0;
    for (; channel + 4 * LANES <= channels; channel += 4 * LANES)
        NAME(moments_of)(x, first, rows, channels, sums, channel, 4);
    for (; channel < channels; channel += LANES) NAME(moments_of)(x, first, rows, channels, sums, channel, 1);
}

/* out = the activated x, times the image's gate where there is one. */
INLINE void NAME(apply_rows)(const REAL *x, struct NAME(affine) by, const REAL *gate, REAL *out, long rows,
                             long channels, const int activation) {
    for (long row = 0; row < rows; row++, x += channels, out += channels)
        for (long channel = 0; channel < channels; channel += LANES) {
            const long at = BEGIN(channel);
            const V z = NAME(load)(x + at, channels) * NAME(load)(by.scale + at, channels) +
                        NAME(load)(by.shift + at, channels);
            V value = NAME(activated)(z, activation).value;
            if (gate) value *= NAME(load)(gate + at, channels);
            NAME(store)(out + at, value, channels);
        }
}

/* Sums run down columns of rows: asks for the column after the next, which no hardware foresees. */
#undef AHEAD
#define AHEAD(from) __builtin_prefetch((from) + 128 / sizeof(REAL))

/* sums: (channels,), of the activated x. */
INLINE void NAME(pool_rows)(const REAL *x, struct NAME(affine) by, REAL *sums, long rows, long channels,
                            const int activation) {
    for (long channel = 0; channel < channels; channel += LANES) {
        const long at = BEGIN(channel);
        const V scale = NAME(load)(by.scale + at, channels), shift = NAME(load)(by.shift + at, channels);
        V sum = SPLAT(0);
        for (long row = 0; row < rows; row++) {
            AHEAD(x + row * channels + at);
            sum += NAME(activated)(NAME(load)(x + row * channels + at, channels) * scale + shift, activation).value;
        }
        NAME(store)(sums + at, sum, channels);
    }
}

/* sums: (2, channels), of g, the gradient at the activation's input, and of g * (x - mean). */
INLINE void NAME(sum_rows)(const REAL *x, const REAL *grad, struct NAME(affine) by, REAL *sums, long rows,
                           long channels, const int activation) {
    for (long channel = 0; channel < channels; channel += LANES) {
        const long at = BEGIN(channel);
        const V scale = NAME(load)(by.scale + at, channels), shift = NAME(load)(by.shift + at, channels);
        const V mean = NAME(load)(by.mean + at, channels);
        V sum = SPLAT(0), product = SPLAT(0);
        for (long row = 0; row < rows; row++) {
            AHEAD(x + row * channels + at);
            AHEAD(grad + row * channels + at);
            const V value = NAME(load)(x + row * channels + at, channels);
            const V back = NAME(load)(grad + row * channels + at, channels) *
                           NAME(activated)(value * scale + shift, activation).slope;
            sum += back;
            product += back * (value - mean);
        }
        NAME(store)(sums + at, sum, channels);
        NAME(store)(sums + channels + at, product, channels);
    }
}

/* Five sums, `step` apart, of grad * value, grad * slope, slope, and the last two times x - mean: with them everything
   that the gradient needs is a sum over images, whatever factor an image's gradient has and whatever is added. */
INLINE void NAME(sum_gated_rows)(const REAL *x, const REAL *grad, struct NAME(affine) by, REAL *sums, long step,
                                 long rows, long channels, const int activation) {
    for (long channel = 0; channel < channels; channel += LANES) {
        const long at = BEGIN(channel);
        const V scale = NAME(load)(by.scale + at, channels), shift = NAME(load)(by.shift + at, channels);
        const V mean = NAME(load)(by.mean + at, channels);
        V sum[5] = {{0}};
        for (long row = 0; row < rows; row++) {
            AHEAD(x + row * channels + at);
            AHEAD(grad + row * channels + at);
            const V value = NAME(load)(x + row * channels + at, channels);
            const V given = NAME(load)(grad + row * channels + at, channels), centred = value - mean;
            const struct NAME(point) point = NAME(activated)(value * scale + shift, activation);
            const V back = given * point.slope;
            sum[0] += given * point.value;
            sum[1] += back;
            sum[2] += point.slope;
            sum[3] += back * centred;
            sum[4] += point.slope * centred;
        }
#pragma GCC unroll 5
        for (int i = 0; i < 5; i++) NAME(store)(sums + i * step + at, sum[i], channels);
    }
}

/* out = scale * (g - constant - (x - mean) * slope), g = (grad * gate + added) * the activation's slope. */
INLINE void NAME(grad_rows)(const REAL *x, const REAL *grad, struct NAME(affine) by, const REAL *constant,
                            const REAL *slope, const REAL *gate, const REAL *added, REAL *out, long rows,
                            long channels, const int activation) {
    for (long row = 0; row < rows; row++, x += channels, grad += channels, out += channels)
        for (long channel = 0; channel < channels; channel += LANES) {
            const long at = BEGIN(channel);
            const V value = NAME(load)(x + at, channels), scale = NAME(load)(by.scale + at, channels);
            V given = NAME(load)(grad + at, channels);
            if (gate) given = given * NAME(load)(gate + at, channels) + NAME(load)(added + at, channels);
            const V back = given * NAME(activated)(value * scale + NAME(load)(by.shift + at, channels), activation).slope;
            const V centred = value - NAME(load)(by.mean + at, channels);
            NAME(store)(out + at,
                        scale * (back - NAME(load)(constant + at, channels) -
                                 centred * NAME(load)(slope + at, channels)),
                        channels);
        }
}

/* Everything that one part of the work may be: one function an activation, so that none is chosen within a loop. */
#undef FOR_EACH_ACTIVATION
#define FOR_EACH_ACTIVATION(CALL)                 \
    switch (n->activation) {                      \
        case NONE: CALL(NONE); break;             \
        case SILU: CALL(SILU); break;             \
        case RELU: CALL(RELU); break;             \
        case RELU6: CALL(RELU6); break;           \
        case HARD_SWISH: CALL(HARD_SWISH); break; \
    }

/* Squeeze-excite's factors, what its pooling adds to each value's gradient, both (images, channels), and the sums of
   sum_gated_rows, (5, images, channels); all null where there is none. */
struct NAME(gated) {
    const REAL *gate, *added, *sums;
};

enum NAME(task) { NAME(APPLY), NAME(POOL), NAME(SUM), NAME(SUM_GATED), NAME(GRAD) };

struct NAME(work) {
    const REAL *x, *grad, *gate, *added, *constant, *slope;
    struct NAME(affine) by;
    REAL *out;
    long step; /* between the sums of one part */
};

static TARGET void NAME(do_part)(const struct norm *n, enum NAME(task) task, struct NAME(work) w, long rows,
                                 long channels) {
#define CALL(kind) NAME(apply_rows)(w.x, w.by, w.gate, w.out, rows, channels, kind)
    if (task == NAME(APPLY)) FOR_EACH_ACTIVATION(CALL)
#undef CALL
#define CALL(kind) NAME(pool_rows)(w.x, w.by, w.out, rows, channels, kind)
    if (task == NAME(POOL)) FOR_EACH_ACTIVATION(CALL)
#undef CALL
#define CALL(kind) NAME(sum_rows)(w.x, w.grad, w.by, w.out, rows, channels, kind)
    if (task == NAME(SUM)) FOR_EACH_ACTIVATION(CALL)
#undef CALL
#define CALL(kind) NAME(sum_gated_rows)(w.x, w.grad, w.by, w.out, w.step, rows, channels, kind)
    if (task == NAME(SUM_GATED)) FOR_EACH_ACTIVATION(CALL)
#undef CALL
#define CALL(kind) NAME(grad_rows)(w.x, w.grad, w.by, w.constant, w.slope, w.gate, w.added, w.out, rows, channels, kind)
    if (task == NAME(GRAD)) FOR_EACH_ACTIVATION(CALL)
#undef CALL
}

/* Does a task on every part. Where it sums, w.out has the parts' sums, `apart` from part to part; else, with 0, it has
   x's own places. */
static TARGET void NAME(do_all)(const struct rows *r, const struct norm *n, int threads, enum NAME(task) task,
                                struct NAME(work) w, long apart) {
    const long channels = r->channels, part_rows = rows_of_a_part(channels, sizeof(REAL));
    const long each = (r->rows + part_rows - 1) / part_rows, parts = r->images * each;
    long next = 0;
#pragma omp parallel num_threads(threads)
    for (long part; (part = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED)) < parts;) {
        const long image = part / each, begin = part % each * part_rows;
        const long rows = r->rows - begin < part_rows ? r->rows - begin : part_rows;
        const long place = (image * r->rows + begin) * channels;
        struct NAME(work) own = w;
        own.x += place;
        own.out += apart ? part * apart : place;
        if (own.grad) own.grad += place;
        if (own.gate) own.gate += image * channels;
        if (own.added) own.added += image * channels;
        NAME(do_part)(n, task, own, rows, channels);
    }
}

/* totals[i] = the sum over the parts of sums[part][i]; count: numbers of a part. */
static TARGET void NAME(add_up)(const REAL *sums, long parts, long count, int threads, double *totals) {
#pragma omp parallel num_threads(threads)
    {
        const long own = omp_get_thread_num(), all = omp_get_num_threads();
        const long begin = count * own / all, end = count * (own + 1) / all;
        for (long i = begin; i < end; i++) totals[i] = 0;
        for (long part = 0; part < parts; part++)
            for (long i = begin; i < end; i++) totals[i] += sums[part * count + i];
    }
}

/* mean, variance: (channels,), written; of the batch, the variance divided by its number of rows. */
static TARGET int NAME(norm_statistics)(const struct rows *r, int threads, const void *x, void *mean, void *variance) {
    const long channels = r->channels, all = r->images * r->rows, part_rows = rows_of_a_part(channels, sizeof(REAL));
    const long parts = (all + part_rows - 1) / part_rows;
    double *totals = malloc((size_t)(2 * channels) * (sizeof(double) + (size_t)parts * sizeof(REAL)));
    if (!totals) return OUT_OF_MEMORY;
    REAL *sums = (REAL *)(totals + 2 * channels);
    long next = 0;
#pragma omp parallel num_threads(threads)
    for (long part; (part = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED)) < parts;) {
        const long begin = part * part_rows, rows = all - begin < part_rows ? all - begin : part_rows;
        NAME(moments)((const REAL *)x + begin * channels, x, rows, channels, sums + 2 * part * channels);
    }
    NAME(add_up)(sums, parts, 2 * channels, threads, totals);
    for (long c = 0; c < channels; c++) {
        const double shifted = totals[c] / all, spread = totals[channels + c] / all - shifted * shifted;
        ((REAL *)mean)[c] = (REAL)(((const REAL *)x)[c] + shifted);
        ((REAL *)variance)[c] = (REAL)(spread < 0 ? 0 : spread);
    }
    free(totals);
    return 0;
}

/* gate: (images, channels), or null for none. */
static TARGET int NAME(norm_act_apply)(const struct rows *r, const struct norm *n, int threads, const void *x,
                                       const void *gate, void *out) {
    REAL *scale = malloc((size_t)(2 * r->channels) * sizeof(REAL)), *shift = scale + r->channels;
    if (!scale) return OUT_OF_MEMORY;
    NAME(make_affine)(n, r->channels, scale, shift);
    NAME(do_all)(r, n, threads, NAME(APPLY),
                 (struct NAME(work)){.x = x, .gate = gate, .by = {scale, shift, n->mean}, .out = out}, 0);
    free(scale);
    return 0;
}

/* The sums of a task over each image's rows, (sums, images, channels), times a factor, to out. */
static TARGET int NAME(sum_images)(const struct rows *r, const struct norm *n, int threads, enum NAME(task) task,
                                   const void *x, const void *grad, long sums, double factor, REAL *out) {
    const long channels = r->channels, part_rows = rows_of_a_part(channels, sizeof(REAL));
    const long each = (r->rows + part_rows - 1) / part_rows, count = sums * channels, all = r->images * channels;
    const long room = each > 1 ? r->images * each * count : 0; /* one part's sums are the image's */
    REAL *scale = malloc((size_t)(2 * channels + room) * sizeof(REAL)), *shift = scale + channels;
    if (!scale) return OUT_OF_MEMORY;
    NAME(make_affine)(n, channels, scale, shift);
    struct NAME(work) work = {.x = x, .grad = grad, .by = {scale, shift, n->mean}, .out = out, .step = all};
    if (each > 1) work.out = shift + channels, work.step = channels;
    NAME(do_all)(r, n, threads, task, work, each > 1 ? count : channels);
    if (each > 1)
        for (long image = 0; image < r->images; image++)
            for (long i = 0; i < count; i++) {
                double total = 0;
                for (long part = 0; part < each; part++) total += work.out[(image * each + part) * count + i];
                out[i / channels * all + image * channels + i % channels] = (REAL)(total * factor);
            }
    else
        for (long i = 0; i < sums * all; i++) out[i] *= (REAL)factor;
    free(scale);
    return 0;
}

/* out: (images, channels), each image's means of what the activation gives. */
static TARGET int NAME(norm_act_pool)(const struct rows *r, const struct norm *n, int threads, const void *x,
                                      void *out) {
    return NAME(sum_images)(r, n, threads, NAME(POOL), x, NULL, 1, 1.0 / (double)r->rows, out);
}

/* out: (5, images, channels). */
static TARGET int NAME(norm_act_gated_sums)(const struct rows *r, const struct norm *n, int threads, const void *x,
                                            const void *grad, void *out) {
    return NAME(sum_images)(r, n, threads, NAME(SUM_GATED), x, grad, 5, 1, out);
}

/* A norm's gradients, written to for_weight and for_bias, (channels,), and what they take from each value's gradient
   and from it for each step from the mean, to constant and slope. */
static TARGET int NAME(norm_gradients)(const struct rows *r, const struct norm *n, int threads, const REAL *x,
                                       const REAL *grad, const struct NAME(gated) *g, REAL *for_weight, REAL *for_bias,
                                       REAL *constant, REAL *slope) {
    const long channels = r->channels, all = r->images * channels, part_rows = rows_of_a_part(channels, sizeof(REAL));
    const long parts = r->images * ((r->rows + part_rows - 1) / part_rows), room = g->gate ? 0 : 2 * (parts + 1) * channels;
    double *totals = calloc((size_t)(2 * channels) * sizeof(double) + (size_t)room * sizeof(REAL), 1);
    if (!totals) return OUT_OF_MEMORY;
    double *products = totals + channels;
    if (g->gate) {
        const REAL *back = g->sums + all, *slopes = back + all, *back_centred = slopes + all, *centred = back_centred + all;
        for (long image = 0; image < r->images; image++)
            for (long c = 0, i = image * channels; c < channels; c++, i++) {
                totals[c] += g->gate[i] * back[i] + g->added[i] * slopes[i];
                products[c] += g->gate[i] * back_centred[i] + g->added[i] * centred[i];
            }
    } else {
        REAL *scale = (REAL *)(products + channels), *shift = scale + channels, *found = shift + channels;
        NAME(make_affine)(n, channels, scale, shift);
        NAME(do_all)(r, n, threads, NAME(SUM),
                     (struct NAME(work)){.x = x, .grad = grad, .by = {scale, shift, n->mean}, .out = found}, 2 * channels);
        NAME(add_up)(found, parts, 2 * channels, threads, totals);
    }
    const double count = (double)(r->images * r->rows);
    for (long c = 0; c < channels; c++) {
        const double variance = ((const REAL *)n->variance)[c] + n->epsilon;
        for_bias[c] = (REAL)totals[c];
        for_weight[c] = (REAL)(products[c] / sqrt(variance));
        constant[c] = (REAL)(totals[c] / count);
        slope[c] = (REAL)(products[c] / count / variance);
    }
    free(totals);
    return 0;
}

/* weight_grad, bias_grad: (channels,), written. gate, added, sums: as `gated` has them, or null. out: the gradient at
   x. */
static TARGET int NAME(norm_act_grad)(const struct rows *r, const struct norm *n, int threads, const void *x,
                                      const void *grad, const void *gate, const void *added, const void *sums,
                                      void *weight_grad, void *bias_grad, void *out) {
    const long channels = r->channels;
    REAL *scale = malloc((size_t)(4 * channels) * sizeof(REAL)), *shift = scale + channels;
    if (!scale) return OUT_OF_MEMORY;
    REAL *constant = shift + channels, *slope = constant + channels;
    const struct NAME(gated) gated = {gate, added, sums};
    int failed = NAME(norm_gradients)(r, n, threads, x, grad, &gated, weight_grad, bias_grad, constant, slope);
    if (!failed) {
        NAME(make_affine)(n, channels, scale, shift);
        NAME(do_all)(r, n, threads, NAME(GRAD),
                     (struct NAME(work)){.x = x,
                                         .grad = grad,
                                         .gate = gate,
                                         .added = added,
                                         .constant = constant,
                                         .slope = slope,
                                         .by = {scale, shift, n->mean},
                                         .out = out},
                     0);
    }
    free(scale);
    return failed;
}
