# Silent bugs that programs of this kind have had, each as one change of one place: cmake/bugs.cmake says how they are planted, tools/bugs.sh tries
# them, docs/proof.md lists them. N1 to N27 are the classes; letters are forms of one, the hardest to notice among them. Texts are kept short
# so that they live long.

# ---- N1: the mask of the loss is off by one
bug(N1a "the first token of an answer is not learnt" FILE train/data.c
  FIND [=[t + 1 < n && trained[t + 1];]=]
  PUT [=[t + 1 < n && trained[t] && trained[t + 1];]=]
  TEST data SAYS [=[learnt ']=])
bug(N1b "the token before an answer is learnt too" FILE train/data.c
  FIND [=[t + 1 < n && trained[t + 1];]=]
  PUT [=[t + 1 < n && (trained[t + 1] || (t + 2 < n && trained[t + 2]));]=]
  TEST data SAYS [=[learnt ']=])
bug(N1c "a label of id 0 is taken for none" FILE train/step.c
  FIND [=[inside && b->labels[i] >= 0]=]
  PUT [=[inside && b->labels[i] > 0]=]
  TEST step SAYS "labels are others")

# ---- N2: labels shifted twice, or not at all
bug(N2a "a label is the token itself" FILE train/data.c
  FIND [=[(int32_t)ids[t + 1] : -1]=]
  PUT [=[(int32_t)ids[t] : -1]=]
  TEST data SAYS "is not the next token")
bug(N2b "labels are shifted once more on their way to the device" FILE train/step.c
  FIND [=[labels[n++] = (uint32_t)b->labels[i];]=]
  PUT [=[labels[n++] = (uint32_t)b->labels[b->labels[i + 1] >= 0 ? i + 1 : i];]=]
  TEST step SAYS "labels are others")
bug(N2c "a label is predicted from the position that reads it" FILE train/step.c
  FIND [=[rows[n] = i;]=]
  PUT [=[rows[n] = i + 1;]=]
  TEST step SAYS "labels are others")

# ---- N3: the end of an answer is never learnt
bug(N3a "control tokens are not learnt, the end of a turn among them" FILE model/template.c
  FIND [=[token_list_push(l->out, id, trained);]=]
  PUT [=[token_list_push(l->out, id, false);]=]
  TEST templates SAYS "answers are learnt")
bug(N3b "the end of sequence is taken for padding" FILE train/data.c
  FIND [=[t + 1 < n && trained[t + 1];]=]
  PUT [=[t + 1 < n && trained[t + 1] && ids[t + 1] != r->form.tokenizer->eos_id;]=]
  TEST data SAYS "ends with")

# ---- N4: the mask depends on how a text is cut into tokens
bug(N4a "an answer behind text, not a control token, is masked but for its end" FILE model/template.c
  FIND [=[l->place, l->trained);]=]
  PUT [=[l->place, l->trained && l->place != TOKENIZE_MIDDLE);]=]
  TEST data SAYS [=[learnt ']=])
bug(N4b "an example without a label counts as one" FILE train/data.c
  FIND [=[*added = n_labels > 0;]=]
  PUT [=[*added = true;]=]
  TEST data SAYS "examples, 2 cut")

# ---- N5: the begin of sequence in training and in inference
bug(N5a "texts are learnt without a begin of sequence" FILE train/forms.c
  FIND [=[text, bytes, TOKENIZE_BOS, true]=]
  PUT [=[text, bytes, 0, true]=]
  TEST data SAYS [=[found ']=])
bug(N5b "a template's begin of sequence is followed by the tokenizer's" FILE model/template.c
  FIND [=[l->run, l->n, l->place, l->trained]=]
  PUT [=[l->run, l->n, l->place | (l->out->n == 1 ? TOKENIZE_BOS : 0), l->trained]=]
  TEST templates SAYS "as a whole")
bug(N5c "prompts are read without the begin of sequence that was learnt" FILE cli/prompts.c
  FIND [=[TOKENIZE_BOS | TOKENIZE_SPECIAL, false]=]
  PUT [=[TOKENIZE_SPECIAL, false]=]
  TEST tokens SAYS "FAILED: training reads 3 tokens of a text")

# ---- N6: documents of a pack see each other
bug(N6a "a document sees all of its row" FILE train/pack.c
  FIND [=[m->first[first + t] = first;]=]
  PUT [=[m->first[first + t] = first / m->seq_len * m->seq_len;]=]
  TEST packing SAYS "is not its example")
bug(N6b "a document sees the last token of the one before" FILE train/step.c
  FIND [=[inside ? b->first[i] : i;]=]
  PUT [=[inside ? b->first[i] - (b->first[i] > 0) : i;]=]
  TEST training SAYS "packed and separate gradients differ")
bug(N6c "a document's last query gives its keys no gradient" FILE train/step.c
  FIND [=[inside ? b->end[i] : i + 1;]=]
  PUT [=[inside ? b->end[i] - (b->end[i] > i + 1) : i + 1;]=]
  TEST step SAYS "spans are not the documents'")
bug(N6d "attention lets the key before a document in" FILE shaders/attention_cpu.comp
  FIND [=[seen[j] = key + j >= span_begin[w] &&]=]
  PUT [=[seen[j] = key + j + 1 >= span_begin[w] &&]=]
  TEST attention SAYS "attention by attention_cpu")

# ---- N7: positions go on through a pack
bug(N7a "positions restart with each row, not with each document" FILE train/pack.c
  FIND [=[m->positions[first + t] = t;]=]
  PUT [=[m->positions[first + t] = (first + t) % m->seq_len;]=]
  TEST packing SAYS "is not its example")
bug(N7b "positions are places in the micro-batch" FILE train/step.c
  FIND [=[inside ? b->positions[i] : 0;]=]
  PUT [=[inside ? i : 0;]=]
  TEST step SAYS "positions do not count")

# ---- N8: what the loss is divided by
bug(N8a "each micro-batch divides by its own labels" FILE train/step.c
  FIND [=[if (!fill_batch(s, b, shape, documents_in_batch]=]
  PUT [=[*(float *)tensor_host(s->m->dev, &s->params) = 1 / (float)b->n_labels;
    if (!fill_batch(s, b, shape, documents_in_batch]=]
  TEST training SAYS "gradients differ")
bug(N8b "a run divides by the labels of its first micro-batch" FILE train/run.c
  FIND [=[logp ? (double)(n / 2) : plan.weight);]=]
  PUT [=[logp ? (double)(n / 2) : plan.micro[0].weight);]=]
  TEST step SAYS "a run's gradient norm")
bug(N8c "a run divides by all tokens, not by the labelled ones" FILE train/run.c
  FIND [=[logp ? (double)(n / 2) : plan.weight);]=]
  PUT [=[logp ? (double)(n / 2) : (double)(plan.n_tokens - plan.n_padding));]=]
  TEST step SAYS "a run's gradient norm")

# ---- N9: the balance loss and accumulation
bug(N9a "each micro-batch takes the mean over its own documents" FILE train/step.c
  FIND [=[weight[used] = 1 / (float)documents;]=]
  PUT [=[weight[used] = 1 / (float)(documents < b->n_documents ? documents : b->n_documents);]=]
  TEST training SAYS "gradients differ")
bug(N9b "the balance loss of a batch is not weighted by its tokens" FILE train/step.c
  FIND [=[(float)((double)used / (double)tokens)]=]
  PUT [=[used && tokens ? 1 : 0]=]
  TEST training SAYS "twice, 1 rows a micro-batch")
bug(N9c "a run hands each micro-batch its own number of documents" FILE train/run.c
  FIND [=[&plan.micro[i], documents,]=]
  PUT [=[&plan.micro[i], documents ? plan.micro[i].n_documents : 0,]=]
  TEST step SAYS "a run's gradient norm")
bug(N9d "the balance loss is told and has no gradient" FILE train/layers_back.c
  FIND [=[tensor_exists(&s->dbalance) ? &s->dbalance : NULL]=]
  PUT [=[NULL]=]
  TEST step SAYS "the router's slope")

# ---- N10: the formula of the balance loss
bug(N10a "only the first choice of a token counts" FILE shaders/balance.comp
  FIND [=[k < p.n_active;]=]
  PUT [=[k < 1;]=]
  TEST rows SAYS "balance by balance at")
bug(N10b "padding counts among the tokens" FILE shaders/balance.comp
  FIND [=[* count / (float(p.n_active) * length)) / length;]=]
  PUT [=[* count / (float(p.n_active) * length)) / float(p.group_start.v[group + 1] - p.group_start.v[group]);]=]
  TEST rows SAYS "balance by balance at")
bug(N10c "padding belongs to the batch that is balanced" FILE train/step.c
  FIND [=[group[i] = real ? 0 : NONE;]=]
  PUT [=[group[i] = 0;]=]
  TEST step SAYS "of padding are in a group")

# ---- N11: the router's gradient
bug(N11a "one expert a token, and its weight is always 1" FILE shaders/route.comp
  FIND [=[p.norm_topk != 0 && p.n_active > 1;]=]
  PUT [=[p.norm_topk != 0;]=]
  TEST rows SAYS "route norm by route")
bug(N11b "the router's weights get no gradient" FILE train/layers_back.c
  FIND [=[linear_backward(p, &l->router, xn, &dlogits, dxn, NULL, ADD);]=]
  PUT [=[linear_backward(p, &l->router, NULL, &dlogits, dxn, NULL, ADD);]=]
  TEST training SAYS "the router has a gradient")
bug(N11c "the router learns from the balance loss alone" FILE shaders/route_back.comp
  FIND [=[(p.dweights.v[slots + k] - mean) * factor;]=]
  PUT [=[0 * factor;]=]
  TEST training SAYS "the router has a gradient")

bug(N11d "a choice learns from what its weight has already made smaller" FILE shaders/expert_swiglu_back.comp
  FIND [=[            dots += d * h;
            d *= weight;]=]
  PUT [=[            d *= weight;
            dots += d * h;]=]
  TEST rows SAYS "expert_swiglu_back by")
bug(N11e "the down projection learns as if every weight were 1" FILE shaders/expert_swiglu_back.comp
  FIND [=[at, weight * h);]=]
  PUT [=[at, h);]=]
  TEST rows SAYS "expert_swiglu_back by")

# ---- N12: norm_topk_prob and routed_scaling_factor
bug(N12a "weights that are normalised are scaled as well" FILE shaders/route.comp
  FIND [=[/= total + 1e-20;]=]
  PUT [=[*= p.scale / (total + 1e-20);]=]
  TEST rows SAYS "route norm by route")
bug(N12b "weights are not scaled" FILE shaders/route.comp
  FIND [=[last : last * p.scale;]=]
  PUT [=[last : last;]=]
  TEST rows SAYS "route by route")
bug(N12c "the gradient of weights is not scaled" FILE shaders/route_back.comp
  FIND [=[float factor = p.scale, mean = 0;]=]
  PUT [=[float factor = 1, mean = 0;]=]
  TEST rows SAYS "route_back by route_back")
bug(N12d "the forward pass normalises whatever the config says" FILE model/layers.c
  FIND [=[r, c->norm_topk, c->routed_scale);]=]
  PUT [=[r, true, c->routed_scale);]=]
  TEST "golden deepseek-scaled" SAYS "logits off")

# ---- N13: tokens that no expert gets, experts that no token gets
bug(N13a "the last tile is dropped where every expert has a part of one" FILE model/ops_moe.c
  FIND [=[rows / r.tile_rows + n_experts)]=]
  PUT [=[rows / r.tile_rows + n_experts - 1)]=]
  TEST rows SAYS "tokens are in tiles")
bug(N13b "an expert takes twice the mean load at most" FILE shaders/sort.comp
  FIND [=[done < totals[e]; done += p.tile_rows]=]
  PUT [=[done < min(totals[e], 2 * p.rows * p.n_active / EXPERTS); done += p.tile_rows]=]
  TEST rows SAYS "sort one expert by sort")
bug(N13c "the place of an expert without tokens is not written" FILE shaders/sort.comp
  FIND [=[p.offsets.v[e] = first;]=]
  PUT [=[if (totals[e] > 0) p.offsets.v[e] = first;]=]
  TEST rows SAYS "sort by sort at")

# ---- N14: races where rows are scattered and gradients gathered
bug(N14a "neighbours on one expert write the same row" FILE shaders/sort.comp
  FIND [=[rank += s < slot && p.experts]=]
  PUT [=[rank += s + 1 < slot && p.experts]=]
  TEST rows SAYS "sort by sort at")
bug(N14b "a token id that comes twice is summed by two workgroups at once" FILE train/step.c
  FIND [=[i != NONE; i = next[i])
            order[n++] = i;]=]
  PUT [=[i != NONE; i = next[i]) {
            if (i != head[v])
                id[segments] = v, start[segments++] = n;
            order[n++] = i;
        }]=]
  TEST step SAYS "segments of")
bug(N14c "a kernel states that it only reads what it writes, so no barrier stands behind it" FILE shaders/push.h
  FIND [=[RW(f32, dh) IN(f32, weights)]=]
  PUT [=[IN(f32, dh) IN(f32, weights)]=]
  TEST rows SAYS "is written by a kernel that states to read it")
bug(N14d "nothing stands between who finds which part of a result is last and who reads it" FILE shaders/last_part.glsl
  FIND [=[    barrier();
    memoryBarrierBuffer();]=]
  PUT [=[    memoryBarrierBuffer();]=]
  TEST order SAYS "reversed: ")

bug(N14e "each part of a cut dispatch begins at the first workgroup" FILE runtime/cmd.c
  FIND [=[vkCmdDispatchBase(cb, base[0], base[1], base[2],]=]
  PUT [=[vkCmdDispatchBase(cb, 0, 0, 0,]=]
  TEST order SAYS "in pieces: ")

# ---- N15 to N17: weights in bf16
bug(N15a "an update is rounded to nearest, and is lost" FILE shaders/adamw.comp
  FIND [=[bits += random16;]=]
  PUT [=[bits += 0x7fffu + (bits >> 16 & 1u);]=]
  TEST rows SAYS "of the host's generator")
bug(N16a "the kernel does not decay weights in bf16" FILE shaders/adamw.comp
  FIND [=[w -= learning_rate * p.decay * w;]=]
  PUT [=[if (BF16 == 0)
        w -= learning_rate * p.decay * w;]=]
  TEST rows SAYS "of the host's generator")
bug(N16b "the step does not ask for the decay of weights in bf16" FILE train/optimiser.c
  FIND [=[p->decay ? o->o.weight_decay : 0]=]
  PUT [=[p->decay && p->w.type == DT_F32 ? o->o.weight_decay : 0]=]
  TEST step SAYS "the decay is")
bug(N17a "rounding up comes half as often as it should" FILE shaders/adamw.comp
  FIND [=[bits += random16;]=]
  PUT [=[bits += random16 >> 1;]=]
  TEST rows SAYS "rounding is biased")
bug(N17b "the kernel draws the same numbers every step" FILE shaders/adamw.comp
  FIND [=[uvec2(p.tensor_index, words.v[10])]=]
  PUT [=[uvec2(p.tensor_index, 0)]=]
  TEST rows SAYS "of the host's generator")
bug(N17c "the step tells the kernel the same step every time" FILE train/step.c
  FIND [=[params->step = (uint32_t)step;]=]
  PUT [=[params->step = step > 0;]=]
  TEST step SAYS "are rounded anew")

# ---- N18: adapters that are not trained
bug(N18a "with recomputation nothing below the head has a gradient where the embedding is frozen" FILE train/step.c
  FIND [=[        if (s->o.recompute)
]=]
  PUT [=[        if (s->o.recompute && !trained(s->m->embed))
            break;
        if (s->o.recompute)
]=]
  TEST training SAYS "is zero after a step")
bug(N18b "an adapter has a gradient only where its base has one" FILE train/layers_back.c
  FIND [=[adapter_learns = x && param_is_trained(l->a);]=]
  PUT [=[adapter_learns = x && param_is_trained(l->a) && param_is_trained(l->w);]=]
  TEST training SAYS "is zero after a step")
bug(N18c "an adapter's gradients lack its scale" FILE train/layers_back.c
  FIND [=[        narrow.alpha = l->scale;
]=]
  PUT [=[]=]
  TEST golden SAYS "is off by")

bug(N18d "an adapter that is to be trained further is made anew" FILE train/run.c
  FIND [=[return o->adapter && !m->dev->is_dry ?]=]
  PUT [=[return false ?]=]
  TEST methods SAYS "without learning the adapter is another")

# ---- N19: merging adapters
bug(N19a "the adapter is merged without its scale" FILE train/merge.c
  FIND [=[(double)p->l->scale * sum[c]]=]
  PUT [=[sum[c]]=]
  TEST train SAYS "with its adapter")
bug(N19b "every expert gets the first one's matrix A" FILE train/merge.c
  FIND [=[*a = p->a + expert * rank * p->in;]=]
  PUT [=[*a = p->a + 0 * expert * rank * p->in;]=]
  TEST train SAYS "with its adapter")
bug(N19c "alpha is divided by the padded rank" FILE model/model.c
  FIND [=[sqrtf((float)o->rank) : (float)o->rank);]=]
  PUT [=[sqrtf((float)o->rank) : (float)lora_padded_rank(o->rank));]=]
  TEST adapter SAYS "logits off")

# ---- N20: the order of an epoch
bug(N20a "the permutation does not depend on the epoch" FILE train/data.c
  FIND [=[STREAM_ORDER + epoch]=]
  PUT [=[STREAM_ORDER + 0 * epoch]=]
  TEST data SAYS "moved, 0 others")
bug(N20b "every epoch asks for the first one's order" FILE train/data.c
  FIND [=[data_permute(b->order, b->n, b->seed, epoch);]=]
  PUT [=[data_permute(b->order, b->n, b->seed, 0);]=]
  TEST data SAYS "both epochs have one order")

# ---- N21: a resumed run is another
bug(N21a "the epoch is not saved" FILE train/checkpoint.c
  FIND [=["epoch", (json_int_t)s->cursor.epoch]=]
  PUT [=["epoch", (json_int_t)0]=]
  TEST train SAYS "a run resumed in its second epoch has other weights")
bug(N21b "the second moments are saved and not read" FILE train/checkpoint.c
  FIND [=[k < PARTS && ok &&]=]
  PUT [=[k < PARTS - 1 && ok &&]=]
  TEST train SAYS "a run resumed in its second epoch has other weights")
bug(N21c "the random numbers of rounding count the steps of this process" FILE train/step.c
  FIND [=[params->step = (uint32_t)step;]=]
  PUT [=[static uint32_t calls;
    params->step = ++calls;]=]
  TEST train SAYS "a run resumed in its second epoch has other weights")

# ---- N22: recomputation is another forward pass
bug(N22a "recomputed, the balance loss has no gradient" FILE model/layers.c
  FIND [=[if (saved && p->n_groups && c->aux_alpha > 0)]=]
  PUT [=[if (saved && out && p->n_groups && c->aux_alpha > 0)]=]
  TEST training SAYS "recompute 1: the gradients have other bits")
bug(N22b "recomputed, the balance loss is counted twice" FILE model/layers.c
  FIND [=[out ? &p->balance : &unread]=]
  PUT [=[out ? &p->balance : unread.address ? &p->balance : &unread]=]
  TEST training SAYS "recompute 1: the loss has other bits")

# ---- N23: numbers that are none reach the optimiser
bug(N23a "the optimiser does not ask whether the step is finite" FILE shaders/adamw.comp
  FIND [=[if (u32_in(p.result).v[4] == 0)]=]
  PUT [=[if (false)]=]
  TEST rows SAYS "in a step that is not finite")
bug(N23b "infinity counts as finite" FILE shaders/norm_finish.comp
  FIND [=[return (floatBitsToUint(x) & 0x7f800000u) != 0x7f800000u;]=]
  PUT [=[return (floatBitsToUint(x) & 0x7fffffffu) <= 0x7f800000u;]=]
  TEST rows SAYS "finite is")
bug(N23c "a run goes on behind a step that is not finite" FILE train/run.c
  FIND [=[if (ok && !r.finite)]=]
  PUT [=[if (ok && !r.finite && n == 0)]=]
  TEST train SAYS "'step 1: the loss is nan' is not in")

# ---- N24: clipping by another norm
bug(N24a "the norm leaves out the last tensor" FILE train/optimiser.c
  FIND [=[o->n_parts, &o->params]=]
  PUT [=[o->n_parts - 1, &o->params]=]
  TEST step SAYS "the gradient norm is")
bug(N24b "the clip factor is told and not applied" FILE shaders/adamw.comp
  FIND [=[g *= clip;]=]
  PUT [=[g *= 1;]=]
  TEST rows SAYS "adamw f32 by adamw")

# ---- N25: overflow
bug(N25a "a row that sees no key is 0 / 0" FILE shaders/attention_cpu.comp
  FIND [=[inverse = sum[w] == 0 ? 0 : 1 / sum[w];]=]
  PUT [=[inverse = 1 / sum[w];]=]
  TEST attention SAYS "a result is not finite")
bug(N25b "scores end where half precision does" FILE shaders/attention_cpu.comp
  FIND [=[bool seen[KEYS];]=]
  PUT [=[bool seen[KEYS];
            [[unroll]] for (uint j = 0; j < KEYS; j++)
                s[j][w] = clamp(s[j][w], -65504.0, 65504.0);]=]
  TEST attention SAYS "far from the reference")
bug(N25c "the router's softmax does not take the maximum off" FILE shaders/route.comp
  FIND [=[prob[j] = exp(prob[j] - top);]=]
  PUT [=[prob[j] = exp(prob[j]);]=]
  TEST rows SAYS "route huge by route")
bug(N25d "operands of f16 units are not brought to their range" FILE shaders/gather_rows.comp
  FIND [=[scale = peak_scale(peak);]=]
  PUT [=[scale = 1;]=]
  TEST rows SAYS "pack_rows")
bug(N25e "sums on units of f16 are given back by the peak of a neighbour" FILE shaders/tile_half.glsl
  FIND [=[peak_unscale(w_peak[col]);]=]
  PUT [=[peak_unscale(w_peak[col ^ 1]);]=]
  TEST linear SAYS "by gemm_nt_dot2")

# ---- N28: the noise of training (NEFTune)
bug(N28a "held-out losses are measured with the noise of training" FILE train/step.c
  FIND [=[ && pass != PASS_EVALUATE]=]
  PUT ""
  TEST step SAYS "evaluation has noise")
bug(N28b "the noise of an example follows its place in the micro-batch" FILE train/step.c
  FIND [=[d ? d->example : 0]=]
  PUT [=[d ? b->document[i] : 0]=]
  TEST step SAYS "tokens have another noise")
bug(N28c "the noise counts the steps of this process" FILE train/step.c
  FIND [=[s->noise_step = step;]=]
  PUT [=[(void)step, s->noise_step++;]=]
  TEST train SAYS "a run resumed in its second epoch has other weights")

bug(N29a "on cards the shared experts of a quantised mixture have another order of sums beside others" FILE model/ops_gemv.c
  FIND [=[const bool long_units = f->across && f->type > DT_BF16 && (!]=]
  PUT [=[const bool long_units = f->across && f->slots && f->type > DT_BF16 && (!]=]
  TEST session SAYS "others differs from alone")
