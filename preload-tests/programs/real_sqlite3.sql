-- One round: a schema, 100,000 rows, queries; one line of what came out of it.
drop table if exists reading;
drop table if exists place;
create table place(id integer primary key, name text unique, kind text check (kind in ('lake', 'hill', 'town')));
create table reading(
    id integer primary key,
    place int references place(id) on delete cascade,
    day text not null,
    value real,
    note text default 'none'
);
create index reading_by_day on reading(day, place);
create view warm as select place, avg(value) as mean from reading group by place having mean > 10;
create trigger changed after update on reading begin update place set name = name || '' where id = new.place; end;
begin;
with recursive n(i) as (select 1 union all select i + 1 from n where i < 50)
    insert into place select i, printf('place %03d', i), case i % 3 when 0 then 'lake' when 1 then 'hill' else 'town' end from n;
with recursive n(i) as (select 1 union all select i + 1 from n where i < 100000)
    insert into reading(place, day, value, note)
    select 1 + i % 50, date('2020-01-01', (i % 700) || ' days'), (i * 7919 % 30011) / 1000.0, hex(i * 31) from n;
commit;
.output /dev/null
select name, count(*), min(value), group_concat(distinct substr(note, 1, 2)) from reading join place on place.id = place group by name;
select day, sum(value) over (partition by place order by day rows 7 preceding) from reading where place < 5 order by day, place limit 2000;
select * from warm order by mean desc;
select json_group_array(json_object('day', day, 'value', value)) from reading where day < '2020-02-01' and place = 3;
explain query plan select * from reading where day between '2020-03-01' and '2020-04-01';
.output
update reading set value = value + 1 where place = 7;
delete from place where kind = 'town';
savepoint half;
delete from reading where id % 2;
rollback to half;
release half;
drop view warm;
select count(*), round(sum(value), 3), count(distinct note) from reading;
