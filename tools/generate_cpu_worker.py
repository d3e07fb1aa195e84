"""Write tg_runtime_cpu's native routines: `python tools/generate_cpu_worker.py`. The assembler is our own.

Everything is one block of code with seven entries:

    worker(worker block)                            a thread's life: take a slice of the current step, run it, again
    post(pool block, job)                           append a job to the ring and wake a sleeping worker
    wait(pool block, ticket, pauses, timespec)      1 when the job is done, 0 when the time is over or a signal came
    stop(pool block)                                let all workers end
    end(signal, siginfo, ucontext)                  handler that sends a worker from wherever it is to its end
    copy(arguments, begin, end)                     a kernel that copies; one workgroup a 64 KiB chunk
    clock()                                         the time stamp counter

`STATE` holds a generation in its high half and the next workgroup to take in its low half. A worker reads it, then the
step, then takes a slice by `lock cmpxchg`, which fails if the step has changed meanwhile: so nobody has to wait for a
worker that the system has put aside, unless it holds a slice. Whoever finishes the last slice publishes the next step:
first a state with nothing to take, then the step, then a state of a new generation. At the end of a job any worker may
start the next. Workers without work spin, and after `PAUSES` turns sleep on `EVENT`; a step of one slice wakes nobody.
Nobody who changes a word that others sleep on may miss a sleeper: it changes the word by a locked instruction and then
reads the count of sleepers, and a sleeper raises the count by a locked instruction before futex compares the word.
Source: Linux x86-64 system calls (futex is 202) and rt_sigframe; Intel SDM for PAUSE, RDTSC, locked instructions.
"""

from __future__ import annotations

from pathlib import Path

from repository import ROOT
from tg_codegen.x86_64.assembler import assemble

__all__ = ["OUTPUT", "generate"]

OUTPUT = ROOT / "packages/tg-runtime-cpu/src/tg_runtime_cpu/native_code.py"

# Byte offsets. What is written by many stands in cache lines of its own.
LAYOUT = {
    "RING_JOBS": 64,
    "EVENT": 0x00,  # u32, raised by new jobs and steps; workers without work sleep on it
    "SLEEPERS": 0x04,
    "POSTED": 0x08,  # u32, jobs ever posted
    "STARTED": 0x0C,  # u32, jobs ever started
    "STOP": 0x10,
    "STATE": 0x40,
    "DONE_GROUPS": 0x80,
    "NOW_CODE": 0xC0,  # the step that is being run, copied from its record, in this order
    "NOW_ARGUMENTS": 0xC8,
    "NOW_GROUPS": 0xD0,
    "NOW_SLICE": 0xD8,
    "NOW_RECORD": 0xE0,
    "STEPS_LEFT": 0xE8,
    "NOW_JOB": 0xF0,
    "COMPLETED": 0x100,  # u32, jobs ever completed; callers sleep on it
    "CALLERS": 0x104,
    "PAUSES": 0x140,
    "RING": 0x180,
    "POOL_BYTES": 0x180 + 64 * 8,
    "WORKER_POOL": 0x00,
    "WORKER_STACK": 0x08,  # the stack pointer to end with; 0 before the worker has started
    "WORKER_ENDED": 0x10,
    "WORKER_BYTES": 0x40,
    "JOB_STEPS": 0x00,
    "JOB_START": 0x08,
    "JOB_DONE": 0x10,  # steps done so far
    "JOB_BYTES": 0x40,
    "STEP_CODE": 0x00,
    "STEP_ARGUMENTS": 0x08,
    "STEP_GROUPS": 0x10,
    "STEP_SLICE": 0x18,
    "STEP_END": 0x20,
    "STEP_BYTES": 0x40,
    "COPY_CHUNK_BYTES": 1 << 16,
}

WAIT, WAKE = 128, 129  # FUTEX_WAIT and FUTEX_WAKE with FUTEX_PRIVATE_FLAG


def _futex_wake(word: str, sleepers: str, base: str, done: str, count: int = 0x7FFFFFFF) -> str:
    return f"""
        cmp dword ptr [{base} + {sleepers}], 0
        je {done}
        lea rdi, [{base} + {word}]
        mov esi, {WAKE}
        mov edx, {count}
        mov eax, 202
        syscall
    """


SOURCE = f"""
    worker:             # rbx pool, r12 workgroups of the step, r13 of the slice, r14 event, r15 state, ebp pauses left
        push rbx
        push rbp
        push r12
        push r13
        push r14
        push r15
        push rdi
        mov rbx, qword ptr [rdi + WORKER_POOL]
        mov qword ptr [rdi + WORKER_STACK], rsp
    take:
        mov ebp, dword ptr [rbx + PAUSES]
    look:
        mov r14d, dword ptr [rbx + EVENT]
        mov r15, qword ptr [rbx + STATE]
        mov r12, qword ptr [rbx + NOW_GROUPS]
        mov esi, r15d
        mov r13, r12
        sub r13, rsi
        jle nothing
        mov rdi, qword ptr [rbx + NOW_ARGUMENTS]
        mov r8, qword ptr [rbx + NOW_CODE]
        mov r9, qword ptr [rbx + NOW_SLICE]
        cmp r13, r9
        cmovg r13, r9
        mov rax, r15
        lea rdx, [r15 + r13]
        lock cmpxchg qword ptr [rbx + STATE], rdx
        jne look
        lea rdx, [rsi + r13]
        call r8
        mov rax, r13
        lock xadd qword ptr [rbx + DONE_GROUPS], rax
        add rax, r13
        cmp rax, r12
        jne take
    finish:
        rdtsc
        shl rdx, 32
        or rax, rdx
        mov r8, qword ptr [rbx + NOW_RECORD]
        mov qword ptr [r8 + STEP_END], rax
        mov r9, qword ptr [rbx + NOW_JOB]
        inc qword ptr [r9 + JOB_DONE]
        add r8, STEP_BYTES
        dec qword ptr [rbx + STEPS_LEFT]
        jne publish
        lock inc dword ptr [rbx + COMPLETED]
        {_futex_wake("COMPLETED", "CALLERS", "rbx", "take")}
        jmp take
    publish:            # r8 is the record of the step
        mov eax, dword ptr [rbx + STATE + 4]
        inc eax
        shl rax, 32
        mov ecx, -1
        or rcx, rax
        mov qword ptr [rbx + STATE], rcx
        mov qword ptr [rbx + NOW_RECORD], r8
        mov rcx, qword ptr [r8 + STEP_CODE]
        mov qword ptr [rbx + NOW_CODE], rcx
        mov rcx, qword ptr [r8 + STEP_ARGUMENTS]
        mov qword ptr [rbx + NOW_ARGUMENTS], rcx
        mov r12, qword ptr [r8 + STEP_GROUPS]
        mov qword ptr [rbx + NOW_GROUPS], r12
        mov rcx, qword ptr [r8 + STEP_SLICE]
        mov qword ptr [rbx + NOW_SLICE], rcx
        mov qword ptr [rbx + DONE_GROUPS], 0
        test r12, r12
        je finish
        mov edx, 1
        shl rdx, 32
        add rax, rdx
        mov qword ptr [rbx + STATE], rax
        cmp r12, rcx
        jle take
        lock inc dword ptr [rbx + EVENT]
        {_futex_wake("EVENT", "SLEEPERS", "rbx", "take")}
        jmp take
    nothing:
        cmp dword ptr [rbx + STOP], 0
        jne ending
        mov eax, dword ptr [rbx + STARTED]
        cmp eax, dword ptr [rbx + POSTED]
        je pausing
        cmp eax, dword ptr [rbx + COMPLETED]
        jne pausing
        mov ecx, eax
        and ecx, RING_JOBS - 1
        lea edx, [rax + 1]
        lock cmpxchg dword ptr [rbx + STARTED], edx
        jne look
        mov r9, qword ptr [rbx + 8*rcx + RING]
        mov qword ptr [rbx + NOW_JOB], r9
        mov qword ptr [r9 + JOB_DONE], 0
        rdtsc
        shl rdx, 32
        or rax, rdx
        mov qword ptr [r9 + JOB_START], rax
        mov rax, qword ptr [r9 + JOB_STEPS]
        mov qword ptr [rbx + STEPS_LEFT], rax
        lea r8, [r9 + JOB_BYTES]
        jmp publish
    pausing:
        pause
        dec ebp
        jg look
        lock inc dword ptr [rbx + SLEEPERS]
        lea rdi, [rbx + EVENT]
        mov esi, {WAIT}
        mov edx, r14d
        xor r10d, r10d
        mov eax, 202
        syscall
        lock dec dword ptr [rbx + SLEEPERS]
        jmp take
    ending:
        mov rdi, qword ptr [rsp]
        mov qword ptr [rdi + WORKER_ENDED], 1
        pop rdi
        pop r15
        pop r14
        pop r13
        pop r12
        pop rbp
        pop rbx
        xor eax, eax
        ret

        .p2align 4
    end:
        mov rax, qword ptr [rsi + 24]               # si_value: the worker block
        mov rcx, qword ptr [rax + WORKER_STACK]
        test rcx, rcx
        je end_ignored
        cmp qword ptr [rax + WORKER_ENDED], 0
        jne end_ignored
        mov qword ptr [rdx + 160], rcx              # ucontext: rsp
        lea rcx, [rip + ending]
        mov qword ptr [rdx + 168], rcx              # rip
        and dword ptr [rdx + 176], 0xfffffbff       # eflags without the direction flag
    end_ignored:
        ret

        .p2align 4
    post:
        mov eax, dword ptr [rdi + POSTED]
        and eax, RING_JOBS - 1
        mov qword ptr [rdi + 8*rax + RING], rsi
        lock inc dword ptr [rdi + POSTED]
        lock inc dword ptr [rdi + EVENT]
        mov r8, rdi
        {_futex_wake("EVENT", "SLEEPERS", "r8", "posted", count=1)}
    posted:
        ret

        .p2align 4
    stop:
        mov dword ptr [rdi + STOP], 1
        lock inc dword ptr [rdi + EVENT]
        mov r8, rdi
        {_futex_wake("EVENT", "SLEEPERS", "r8", "stopped")}
    stopped:
        ret

        .p2align 4
    wait:
        mov r8, rdi
        mov r9d, esi
        mov r10, rcx
    wait_spin:
        mov ecx, dword ptr [r8 + COMPLETED]
        mov eax, ecx
        sub eax, r9d
        jns wait_done
        pause
        dec edx
        jg wait_spin
        lock inc dword ptr [r8 + CALLERS]
        lea rdi, [r8 + COMPLETED]
        mov esi, {WAIT}
        mov edx, ecx
        mov eax, 202
        syscall
        lock dec dword ptr [r8 + CALLERS]
        mov eax, dword ptr [r8 + COMPLETED]
        sub eax, r9d
        jns wait_done
        xor eax, eax
        ret
    wait_done:
        mov eax, 1
        ret

        .p2align 4
    copy:
        mov r8, rdi
        mov rcx, rdx
        shl rcx, 16
        cmp rcx, qword ptr [r8 + 16]
        cmovg rcx, qword ptr [r8 + 16]
        shl rsi, 16
        sub rcx, rsi
        mov rdi, qword ptr [r8]
        add rdi, rsi
        add rsi, qword ptr [r8 + 8]
        rep movsb
        ret

        .p2align 4
    clock:
        rdtsc
        shl rdx, 32
        or rax, rdx
        ret
"""


def generate() -> str:
    """The text of the generated module."""
    source = SOURCE.replace("RING_JOBS - 1", str(LAYOUT["RING_JOBS"] - 1))
    for name, value in sorted(LAYOUT.items(), key=lambda item: -len(item[0])):
        source = source.replace(name, str(value))
    assembly = assemble(source)
    entries = ("worker", "end", "post", "wait", "stop", "copy", "clock")
    constants = {**LAYOUT, **{f"ENTRY_{name.upper()}": assembly.labels[name] for name in entries}}
    text = assembly.code.hex()
    lines = [
        '"""Native routines of the worker pool, and the layout of the blocks they work on."""',
        "",
        "# Generated by tools/generate_cpu_worker.py, which holds the source and explains it.",
        "",
        "from __future__ import annotations",
        "",
        *[f"{name} = 0x{value:X}" for name, value in constants.items()],
        "",
        "CODE = bytes.fromhex(",
        *[f'    "{text[i : i + 96]}"' for i in range(0, len(text), 96)],
        ")",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    Path(OUTPUT).write_text(generate(), encoding="utf-8")
